//! What the settings refer to by path: read, and where nobody named a certificate, made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use uuid::Uuid;

use super::failure::Refused;
use crate::admin::users::Users;
use crate::base::diagnostic::Diagnostic;
use crate::base::pem::KeyPair;
use crate::base::seal::Seal;
use crate::base::secret::Secret;
use crate::base::self_signed::{PemPair, default_pairs};
use crate::dialects::kong::compile::serving::ServingFiles;
use crate::model::plan::{CertificatePlan, KeyPairPlan};
use crate::plugins::kong::renderer::ErrorTemplates;
use crate::runtime::certificates::ServerCertificate;
use crate::runtime::upstream_tls::system_bundle;
use crate::settings::Settings;
use crate::settings::administration::AdminAuth;
use crate::settings::tls::TrustAnchor;

/// The largest file that is read, in bytes: a bundle of authorities is some hundred kilobytes long.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Folder of the generated certificates in the prefix.
const GENERATED_FOLDER: &str = "ssl";
/// File names of the generated certificates, in the order of [`default_pairs`].
const GENERATED: [&str; 2] = ["default-rsa", "default-ecdsa"];

/// Everything that was read.
pub(crate) struct Files {
    pub(crate) serving: ServingFiles,
    /// Shown where no server name fits. None only when none was asked for.
    pub(crate) default_certificate: Option<Arc<ServerCertificate>>,
    pub(crate) administration: AdministrationFiles,
    pub(crate) templates: ErrorTemplates,
    /// Who may administer; none for everybody.
    pub(crate) users: Option<Arc<Users>>,
}

/// Where the key that seals stored texts is, in the prefix.
const SEAL_FILE: &str = "seal.key";

/// The key that seals stored texts; made when there is none.
pub(crate) fn seal(prefix: &Path) -> anyhow::Result<Seal> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = prefix.join(SEAL_FILE);
    let name = path.display().to_string();
    let created = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match created {
        Ok(mut file) => {
            let seal = Seal::fleeting();
            // Without the key what was sealed is lost, so it is on disk before anything is sealed with it.
            file.write_all(seal.to_text().as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("{name}: cannot be written"))?;
            Ok(seal)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{name}: cannot be read"))?;
            Seal::from_text(&text)
                .with_context(|| format!("{name}: is damaged, expected 32 bytes in Base64"))
        }
        Err(error) => Err(error).with_context(|| format!("{name}: cannot be made")),
    }
}

/// What to do about default certificates that do not exist yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make them.
    Make,
    /// Leave it: nothing may be written.
    Leave,
}

/// Reads all files; everything that is wrong with any of them is told.
pub(crate) fn read(settings: &Settings, missing: Missing) -> Result<Files, Refused> {
    let mut reader = Reader {
        settings,
        wrong: Vec::new(),
    };
    let files = Files {
        serving: ServingFiles {
            trust_anchors: reader.trust_anchors(),
            client_certificate: reader.client_certificate(),
        },
        default_certificate: reader.default_certificate(missing),
        administration: reader.administration(),
        templates: reader.templates(),
        users: reader.users(),
    };
    if reader.wrong.is_empty() {
        Ok(files)
    } else {
        Err(Refused(reader.wrong))
    }
}

/// What administrative listeners with TLS show; absent: the default certificate.
#[derive(Default)]
pub(crate) struct AdministrationFiles {
    pub(crate) admin: Option<Arc<ServerCertificate>>,
    pub(crate) status: Option<Arc<ServerCertificate>>,
}

struct Reader<'a> {
    settings: &'a Settings,
    wrong: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn refuse(&mut self, key: &'static str, message: impl Into<String>) {
        self.wrong.push(Diagnostic::error(
            "unusable-file",
            self.settings.origin(key),
            message,
        ));
    }

    fn text(&mut self, key: &'static str, path: &Path) -> Option<String> {
        match read_text(path) {
            Ok(text) => Some(text),
            Err(reason) => {
                self.refuse(key, format!("{}: {reason}", path.display()));
                None
            }
        }
    }

    fn trust_anchors(&mut self) -> Arc<str> {
        let anchors = self.settings.tls.lua_ssl_trusted_certificate.clone();
        // The system's alone are read when first needed: most configurations verify nobody.
        if anchors.iter().all(|anchor| *anchor == TrustAnchor::System) {
            return Arc::default();
        }
        let key = "lua_ssl_trusted_certificate";
        let mut all = String::new();
        for anchor in &anchors {
            let pem = match anchor {
                TrustAnchor::File(path) => self.text(key, path),
                TrustAnchor::System => match system_bundle() {
                    Ok((_, pem)) => Some(pem),
                    Err(reason) => {
                        self.refuse(key, reason);
                        None
                    }
                },
            };
            all.push_str(&pem.unwrap_or_default());
            all.push('\n');
        }
        if let Err(error) = crate::base::pem::parse_certificates(&all) {
            self.refuse(key, error.to_string());
        }
        all.into()
    }

    fn client_certificate(&mut self) -> Option<Arc<KeyPairPlan>> {
        let tls = &self.settings.tls;
        if !tls.client_ssl {
            return None;
        }
        let (certificate, key) = (
            tls.client_ssl_cert.clone()?,
            tls.client_ssl_cert_key.clone()?,
        );
        self.pair("client_ssl_cert", &certificate, "client_ssl_cert_key", &key)
            .map(Arc::new)
    }

    fn pair(
        &mut self,
        certificate_key: &'static str,
        certificate: &Path,
        key_key: &'static str,
        key: &Path,
    ) -> Option<KeyPairPlan> {
        let (pem, key_pem) = (
            self.text(certificate_key, certificate),
            self.text(key_key, key),
        );
        let (pem, key_pem) = (pem?, key_pem?);
        if let Err(error) = KeyPair::parse(&pem, &key_pem) {
            self.refuse(
                certificate_key,
                format!("{}: {error}", certificate.display()),
            );
            return None;
        }
        Some(KeyPairPlan {
            certificate: pem.into(),
            key: Secret::new(key_pem),
        })
    }

    fn default_certificate(&mut self, missing: Missing) -> Option<Arc<ServerCertificate>> {
        let tls = &self.settings.tls;
        let listen = &self.settings.listen;
        let asked_for = [
            &listen.proxy_listen.all,
            &listen.admin_listen.all,
            &listen.status_listen.all,
        ]
        .into_iter()
        .flatten()
        .any(|one| one.ssl);
        let pairs: Vec<KeyPairPlan> = if tls.ssl_cert.is_empty() {
            if !asked_for {
                return None;
            }
            self.generated(missing)?
        } else {
            let named = [
                ("ssl_cert", tls.ssl_cert.clone()),
                ("ssl_cert_key", tls.ssl_cert_key.clone()),
            ];
            self.pairs(named)
        };
        self.certificate_of("ssl_cert", pairs)
    }

    /// The certificates of the administrative listeners, where they have their own.
    fn administration(&mut self) -> AdministrationFiles {
        let tls = &self.settings.tls;
        let of = [
            [
                ("admin_ssl_cert", tls.admin_ssl_cert.clone()),
                ("admin_ssl_cert_key", tls.admin_ssl_cert_key.clone()),
            ],
            [
                ("status_ssl_cert", tls.status_ssl_cert.clone()),
                ("status_ssl_cert_key", tls.status_ssl_cert_key.clone()),
            ],
        ];
        let [admin, status] = of.map(|named| {
            let key = named[0].0;
            let pairs = self.pairs(named);
            self.certificate_of(key, pairs)
        });
        AdministrationFiles { admin, status }
    }

    /// Pairs of certificate and key, in the order named.
    fn pairs(&mut self, named: [(&'static str, Vec<PathBuf>); 2]) -> Vec<KeyPairPlan> {
        let [(certificate_key, certificates), (key_key, keys)] = named;
        certificates
            .iter()
            .zip(&keys)
            .filter_map(|(certificate, key)| self.pair(certificate_key, certificate, key_key, key))
            .collect()
    }

    /// One certificate of all pairs, if there are any; `key` is the setting that named them.
    fn certificate_of(
        &mut self,
        key: &'static str,
        pairs: Vec<KeyPairPlan>,
    ) -> Option<Arc<ServerCertificate>> {
        if pairs.is_empty() {
            return None;
        }
        let plan = CertificatePlan {
            id: Uuid::nil(),
            pairs,
            server_names: Vec::new(),
        };
        match ServerCertificate::link(Arc::new(plan)) {
            Ok(certificate) => Some(certificate),
            Err(reason) => {
                self.refuse(key, reason);
                None
            }
        }
    }

    /// The pairs in the prefix, made when they are not there.
    fn generated(&mut self, missing: Missing) -> Option<Vec<KeyPairPlan>> {
        let folder = self.settings.general.prefix.join(GENERATED_FOLDER);
        let files = GENERATED.map(|name| {
            (
                folder.join(format!("{name}.crt")),
                folder.join(format!("{name}.key")),
            )
        });
        let all_there = files
            .iter()
            .all(|(certificate, key)| certificate.exists() && key.exists());
        if !all_there {
            if missing == Missing::Leave {
                return None;
            }
            if let Err(reason) = generate(&folder, &files) {
                self.refuse("ssl_cert", reason);
                return None;
            }
        }
        files
            .iter()
            .map(|(certificate, key)| self.pair("ssl_cert", certificate, "ssl_cert_key", key))
            .collect()
    }

    fn templates(&mut self) -> ErrorTemplates {
        let proxying = &self.settings.proxying;
        let paths = [
            ("error_template_html", proxying.error_template_html.clone()),
            ("error_template_json", proxying.error_template_json.clone()),
            ("error_template_xml", proxying.error_template_xml.clone()),
            (
                "error_template_plain",
                proxying.error_template_plain.clone(),
            ),
        ];
        let [html, json, xml, plain] =
            paths.map(|(key, path)| path.and_then(|path| self.template(key, &path)));
        ErrorTemplates {
            html,
            json,
            xml,
            plain,
        }
    }

    fn template(&mut self, key: &'static str, path: &Path) -> Option<String> {
        let text = self.text(key, path)?;
        let places = text.matches("%s").count();
        if places > 2 {
            self.refuse(
                key,
                format!(
                    "{}: has {places} '%s', at most two are filled",
                    path.display()
                ),
            );
            return None;
        }
        Some(text)
    }

    fn users(&mut self) -> Option<Arc<Users>> {
        let administration = &self.settings.administration;
        if administration.admin_auth == AdminAuth::Off {
            return None;
        }
        let path = administration.admin_users.clone()?;
        let text = self.text("admin_users", &path)?;
        match Users::parse(&path.display().to_string(), &text) {
            Ok(users) => Some(Arc::new(users)),
            Err(wrong) => {
                self.wrong.extend(wrong);
                None
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn generate(folder: &Path, files: &[(PathBuf, PathBuf); 2]) -> Result<(), String> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let pairs = default_pairs(now).map_err(|error| error.to_string())?;
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("{}: cannot be made: {error}", folder.display()))?;
    for (PemPair { certificate, key }, (certificate_file, key_file)) in pairs.iter().zip(files) {
        write_private(certificate_file, certificate)?;
        write_private(key_file, key)?;
    }
    Ok(())
}

/// Writes a file that only its owner can read; whoever looks finds all of it or none.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension(format!("part.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}
