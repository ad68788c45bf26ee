//! The server name of a TLS ClientHello, found without taking part in the handshake (RFC 8446, 4.1.2; RFC 6066, 3).
//!
//! The hello may be spread over many records. Everything but the way to the server name is skipped, so key shares of
//! any size, unknown extensions and an outer hello of Encrypted Client Hello are no different from others: of the latter
//! the outer, public name is found. Refuses to know sockets and routes.

/// Bytes of a hello that are looked at, record headers included. Browsers send up to 2 KiB, post-quantum key shares
/// included.
pub(crate) const HELLO_BYTES_MAX: usize = 48 * 1024;
/// Longest host name, in bytes (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;

const CONTENT_HANDSHAKE: u8 = 22;
/// Longest payload of a plain-text record, in bytes (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
const MESSAGE_HEADER_BYTES: usize = 4;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_HOST: u8 = 0;

/// What a hello says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    /// In lower case, without a final dot; none when it names no host, or an address.
    pub(crate) server_name: Option<Box<str>>,
}

/// Why something is no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a TLS ClientHello: {0}")]
pub(crate) struct Malformed(&'static str);

/// Reads a hello from the beginning of a connection. `Ok(None)`: so far it is one, but not complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Hello>, Malformed> {
    let Some(message) = Message::gather(bytes)? else {
        return Ok(None);
    };
    read(message.as_bytes()).map(Some)
}

/// The hello's handshake message without record headers, and without its own.
enum Message<'a> {
    Borrowed(&'a [u8]),
    Joined(Vec<u8>),
}

impl<'a> Message<'a> {
    fn gather(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let Some((first, rest)) = record(bytes)? else {
            return Ok(None);
        };
        if first
            .first()
            .is_some_and(|kind| *kind != MESSAGE_CLIENT_HELLO)
        {
            return Err(Malformed("the first handshake message is another one"));
        }
        if let Some(length) = announced(first)
            && let Some(whole) = first.get(MESSAGE_HEADER_BYTES..MESSAGE_HEADER_BYTES + length)
        {
            // Nearly always: one record holds it all.
            return Ok(Some(Self::Borrowed(whole)));
        }
        let mut joined = first.to_vec();
        let mut rest = rest;
        loop {
            if let Some(length) = announced(&joined) {
                if length + MESSAGE_HEADER_BYTES > HELLO_BYTES_MAX {
                    return Err(Malformed("it announces more bytes than are looked at"));
                }
                if joined.len() >= MESSAGE_HEADER_BYTES + length {
                    joined.truncate(MESSAGE_HEADER_BYTES + length);
                    joined.drain(..MESSAGE_HEADER_BYTES);
                    return Ok(Some(Self::Joined(joined)));
                }
            }
            let Some((next, after)) = record(rest)? else {
                return Ok(None);
            };
            joined.extend_from_slice(next);
            rest = after;
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// The length in a message's header, once it is there.
fn announced(message: &[u8]) -> Option<usize> {
    match message.get(1..MESSAGE_HEADER_BYTES)? {
        [a, b, c] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
        _ => None,
    }
}

/// A record's payload, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The payload of the record at the beginning, and what follows it. None when it is not complete; its header is checked
/// as soon as it is there, so that other protocols are told at their first byte.
fn record(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    match bytes {
        [kind, ..] if *kind != CONTENT_HANDSHAKE => {
            return Err(Malformed("no handshake record"));
        }
        [_, major, ..] if *major != 3 => return Err(Malformed("unknown record version")),
        _ => {}
    }
    let [_, _, _, high, low, payload @ ..] = bytes else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length == 0 || length > RECORD_BYTES_MAX {
        return Err(Malformed("record of a forbidden length"));
    }
    Ok(payload.split_at_checked(length))
}

fn read(message: &[u8]) -> Result<Hello, Malformed> {
    const SHORT: Malformed = Malformed("a field is cut short");
    let mut fields = Fields(message);
    // Version and random.
    fields.skip(2 + 32).ok_or(SHORT)?;
    let session_id = fields.take_u8_list().ok_or(SHORT)?;
    if session_id.len() > 32 {
        return Err(Malformed("session id longer than 32 bytes"));
    }
    let suites = fields.take_u16_list().ok_or(SHORT)?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(Malformed("list of cipher suites of a forbidden length"));
    }
    fields.take_u8_list().ok_or(SHORT)?;
    if fields.0.is_empty() {
        // Before TLS 1.2 extensions could be left out.
        return Ok(Hello { server_name: None });
    }
    let mut extensions = Fields(fields.take_u16_list().ok_or(SHORT)?);
    if !fields.0.is_empty() {
        return Err(Malformed("bytes behind the extensions"));
    }
    let mut server_name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.take_u16().ok_or(SHORT)?;
        let body = extensions.take_u16_list().ok_or(SHORT)?;
        if kind == EXTENSION_SERVER_NAME {
            if server_name.is_some() {
                return Err(Malformed("two server names"));
            }
            server_name = Some(host_name(body)?);
        }
    }
    Ok(Hello {
        server_name: server_name.flatten(),
    })
}

fn host_name(extension: &[u8]) -> Result<Option<Box<str>>, Malformed> {
    const SHORT: Malformed = Malformed("the server name is cut short");
    let mut list = Fields(Fields(extension).take_u16_list().ok_or(SHORT)?);
    while !list.0.is_empty() {
        let kind = list.take_u8().ok_or(SHORT)?;
        let name = list.take_u16_list().ok_or(SHORT)?;
        if kind != NAME_HOST {
            continue;
        }
        let name = name.strip_suffix(b".").unwrap_or(name);
        let plain = |byte: &u8| byte.is_ascii_graphic();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(plain) {
            return Err(Malformed("the server name is no host name"));
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        // Addresses are not allowed there, and name nobody.
        let address = name.parse::<std::net::IpAddr>().is_ok();
        return Ok((!address).then(|| name.into()));
    }
    Ok(None)
}

/// Fields of the presentation language of RFC 8446, section 3.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn take_u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn take_u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn take_u8_list(&mut self) -> Option<&'a [u8]> {
        let length = self.take_u8()?;
        self.take(length.into())
    }

    fn take_u16_list(&mut self) -> Option<&'a [u8]> {
        let length = self.take_u16()?;
        self.take(length.into())
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

    use super::*;

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn named(name: &str) -> Vec<u8> {
        let mut entry = vec![NAME_HOST];
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend(name.as_bytes());
        let mut list = u16::try_from(entry.len()).unwrap().to_be_bytes().to_vec();
        list.extend(entry);
        extension(EXTENSION_SERVER_NAME, &list)
    }

    /// The handshake message, with its header.
    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(32);
        body.extend([8; 32]);
        body.extend([0, 2, 0x13, 0x01, 1, 0]);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let mut message = vec![MESSAGE_CLIENT_HELLO];
        message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    fn records(message: &[u8], piece: usize) -> Vec<u8> {
        message
            .chunks(piece)
            .flat_map(|piece| {
                let mut record = vec![CONTENT_HANDSHAKE, 3, 1];
                record.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
                record.extend(piece);
                record
            })
            .collect()
    }

    fn name_of(bytes: &[u8]) -> Option<String> {
        let hello = parse(bytes).unwrap().expect("complete");
        hello.server_name.map(String::from)
    }

    #[test]
    fn finds_the_name_however_it_is_cut() {
        let mut extensions = extension(0x0a0a, &[]);
        // A post-quantum key share, and more than one record can hold behind it.
        extensions.extend(extension(51, &[1; 1216]));
        extensions.extend(extension(21, &[0; 20_000]));
        extensions.extend(named("A.Example.TEST."));
        extensions.extend(extension(0xfe0d, &[5; 300]));
        let message = message(&extensions);
        assert!(message.len() > RECORD_BYTES_MAX);
        for piece in [1, 3, 100, 1400, RECORD_BYTES_MAX] {
            let whole = records(&message, piece);
            assert_eq!(
                name_of(&whole).as_deref(),
                Some("a.example.test"),
                "{piece}"
            );
            let mut followed = whole.clone();
            followed.extend(b"\x14\x03\x03 early data or anything");
            assert_eq!(name_of(&followed).as_deref(), Some("a.example.test"));
        }
        let whole = records(&message, 1400);
        for length in (0..whole.len()).step_by(7) {
            assert_eq!(parse(&whole[..length]), Ok(None), "{length}");
        }
    }

    #[test]
    fn names_that_are_none() {
        for (extensions, name) in [
            (vec![], None),
            (extension(16, b"\0\x03\x02h2"), None),
            (named("192.0.2.1"), None),
            (named("a.test"), Some("a.test")),
            (named("_a.test"), Some("_a.test")),
        ] {
            let bytes = records(&message(&extensions), 1 << 14);
            assert_eq!(name_of(&bytes).as_deref(), name);
        }
    }

    #[test]
    fn refuses_what_is_no_hello() {
        let twice = [named("a.test"), named("b.test")].concat();
        let mut cut = message(&named("a.test"));
        // The length of the name, which is the last field.
        let length = cut.len() - "a.test".len() - 1;
        cut[length] = 200;
        let too_long = [CONTENT_HANDSHAKE, 3, 1, 0x40, 0x01];
        let huge = records(&[MESSAGE_CLIENT_HELLO, 0xff, 0, 0, 1], 100);
        for (bytes, why) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), "no handshake record"),
            (b"G".to_vec(), "no handshake record"),
            (vec![CONTENT_HANDSHAKE, 2, 0], "unknown record version"),
            (too_long.to_vec(), "record of a forbidden length"),
            (
                vec![CONTENT_HANDSHAKE, 3, 1, 0, 0],
                "record of a forbidden length",
            ),
            (
                records(&[2, 0, 0, 1, 0], 100),
                "the first handshake message is another one",
            ),
            (huge, "it announces more bytes than are looked at"),
            (records(&message(&twice), 1 << 14), "two server names"),
            (
                records(&message(&named("a b.test")), 1 << 14),
                "the server name is no host name",
            ),
            (
                records(&message(&named("")), 1 << 14),
                "the server name is no host name",
            ),
        ] {
            assert_eq!(parse(&bytes), Err(Malformed(why)));
        }
        assert!(parse(&records(&cut, 1 << 14)).is_err());
    }

    #[test]
    fn any_bytes_are_survived() {
        let whole = records(&message(&named("a.test")), 1 << 14);
        for at in 0..whole.len() {
            for value in [0, 1, 22, 127, 255] {
                let mut broken = whole.clone();
                broken[at] = value;
                let _ = parse(&broken);
            }
        }
    }
}
