//! Who may administer: a file with a name and an argon2 hash on each line.
//!
//! Checking a hash is slow on purpose, so pairs that proved right are remembered, as keyed digests, never as text.

use ahash::{AHashMap, AHashSet};
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::model::{Diagnostic, SourceRef};

/// Most users of one file.
pub const USERS_MAX: usize = 10_000;

/// Most proven pairs remembered; then all are forgotten and proven again.
const PROVEN_MAX: usize = 1_024;

/// Hashes computed at once: each takes tens of milliseconds and megabytes, and strangers can ask for them.
const HASHES_AT_ONCE: usize = 2;

/// Longest name or password tried, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 1_024;

/// The users of one file.
pub struct Users {
    hashes: AHashMap<String, String>,
    proven: Mutex<AHashSet<[u8; 32]>>,
    /// Makes remembered digests useless outside this process.
    salt: [u8; 32],
    turns: Semaphore,
}

impl Users {
    /// Reads the text of a users file; `name` is the file's name for messages. Empty lines and lines with `#` in front
    /// count for nothing. Errors: everything that is wrong, by line.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut hashes = AHashMap::new();
        let mut wrong = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(line) {
                Ok((user, _)) if hashes.contains_key(user) => {
                    wrong.push((index, format!("user '{user}' is listed twice")));
                }
                Ok(_) if hashes.len() >= USERS_MAX => {
                    wrong.push((index, format!("more than {USERS_MAX} users")));
                    break;
                }
                Ok((user, hash)) => {
                    hashes.insert(user.to_owned(), hash.to_owned());
                }
                Err(message) => wrong.push((index, message.to_owned())),
            }
        }
        if hashes.is_empty() && wrong.is_empty() {
            wrong.push((0, "holds no user, so nobody could administer".to_owned()));
        }
        if !wrong.is_empty() {
            return Err(wrong
                .into_iter()
                .map(|(index, message)| {
                    let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
                    Diagnostic::error(
                        "admin_users",
                        SourceRef::document(name).at_line(line),
                        message,
                    )
                })
                .collect());
        }
        Ok(Self {
            hashes,
            proven: Mutex::default(),
            salt: rand::random(),
            turns: Semaphore::new(HASHES_AT_ONCE),
        })
    }

    /// Whether the password is the user's.
    pub async fn admit(&self, user: &str, password: &str) -> bool {
        if user.len() > CREDENTIAL_BYTES_MAX || password.len() > CREDENTIAL_BYTES_MAX {
            return false;
        }
        let digest = self.digest(user, password);
        if self.proven.lock().contains(&digest) {
            return true;
        }
        let Ok(_turn) = self.turns.acquire().await else {
            return false;
        };
        // An unknown user costs as much time as a known one, so that names cannot be guessed by the clock.
        let known = self.hashes.get(user);
        let Some(hash) = known.or_else(|| self.hashes.values().next()).cloned() else {
            return false;
        };
        let password = password.to_owned();
        let matches = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            })
        });
        let admitted = matches.await.unwrap_or(false) && known.is_some();
        if admitted {
            let mut proven = self.proven.lock();
            if proven.len() >= PROVEN_MAX {
                proven.clear();
            }
            proven.insert(digest);
        }
        admitted
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.salt);
        hasher.update(user.len().to_le_bytes());
        hasher.update(user);
        hasher.update(password);
        hasher.finalize().into()
    }
}

/// Splits `name:HASH` or `name HASH`.
fn parse_line(line: &str) -> Result<(&str, &str), &'static str> {
    const FORM: &str = "expected a name, a colon and an argon2 hash in PHC form ($argon2id$…)";
    let at = line.find("$argon2").ok_or(FORM)?;
    let (user, hash) = line.split_at(at);
    let user = user.trim_end().trim_end_matches(':').trim_end();
    if user.is_empty() || user.contains(':') {
        return Err(FORM);
    }
    match PasswordHash::new(hash) {
        Ok(parsed) if parsed.hash.is_some() && parsed.algorithm.as_str().starts_with("argon2") => {
            Ok((user, hash))
        }
        _ => Err(FORM),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]
    use argon2::PasswordHasher;
    use argon2::password_hash::SaltString;

    use super::*;

    fn hash(password: &str) -> String {
        let salt = SaltString::encode_b64(b"some salt").unwrap();
        let cheap = argon2::Params::new(8, 1, 1, None).unwrap();
        Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap)
            .hash_password(password.as_bytes(), &salt)
            .unwrap()
            .to_string()
    }

    #[tokio::test]
    async fn admits_who_is_listed() {
        let text = format!("# who\nann:{}\nbob {}\n", hash("a"), hash("b"));
        let users = Users::parse("users", &text).unwrap_or_else(|_| panic!("sound"));
        for (user, password, admitted) in [
            ("ann", "a", true),
            ("ann", "a", true),
            ("bob", "b", true),
            ("bob", "a", false),
            ("eve", "a", false),
            ("", "", false),
        ] {
            assert_eq!(
                users.admit(user, password).await,
                admitted,
                "{user} {password}"
            );
        }
    }

    #[test]
    fn tells_every_wrong_line() {
        let text = format!(
            "ann:{}\nann:{}\nbob:secret\n:{}\n",
            hash("a"),
            hash("b"),
            hash("c")
        );
        let Err(wrong) = Users::parse("users", &text) else {
            panic!("refused");
        };
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("users:2: "), "{lines:?}");
        assert!(Users::parse("users", "\n").is_err());
    }
}
