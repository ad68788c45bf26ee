#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use super::*;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame by its bytes.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if masked { MASKED } else { 0 };
    match payload.len() {
        length @ 0..=125 => bytes.push(bit | length as u8),
        length @ 126..=65_535 => {
            bytes.push(bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mut payload = payload.to_vec();
    if masked {
        bytes.extend(MASK);
        for (byte, mask) in payload.iter_mut().zip(MASK.iter().cycle()) {
            *byte ^= mask;
        }
    }
    bytes.extend(payload);
    bytes
}

fn decoder(sender: Sender) -> Decoder {
    Decoder::new(sender, Compression::Off, 1 << 20)
}

/// Everything in the bytes, given in pieces of `step`.
fn decode(decoder: &mut Decoder, bytes: &[u8], step: usize) -> Result<Vec<Message>, Violation> {
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        decoder.push(piece);
        while let Some(framed) = decoder.next()? {
            messages.push(framed.message);
        }
    }
    Ok(messages)
}

fn message(kind: MessageKind, data: &[u8]) -> Message {
    Message {
        kind,
        data: Bytes::copy_from_slice(data),
        code: None,
    }
}

#[test]
fn reads_messages_however_they_arrive() {
    let long = vec![b'l'; 70_000];
    let mut bytes = frame(0x81, true, "größer".as_bytes());
    bytes.extend(frame(0x02, true, b"one, "));
    bytes.extend(frame(0x89, true, b"ping"));
    bytes.extend(frame(0x00, true, b"two, "));
    bytes.extend(frame(0x80, true, b"three"));
    bytes.extend(frame(0x82, true, &long));
    bytes.extend(frame(0x81, true, b""));
    let expected = [
        message(MessageKind::Text, "größer".as_bytes()),
        message(MessageKind::Ping, b"ping"),
        message(MessageKind::Binary, b"one, two, three"),
        message(MessageKind::Binary, &long),
        message(MessageKind::Text, b""),
    ];
    for step in [1, 3, 7, 1000, bytes.len()] {
        let messages = decode(&mut decoder(Sender::Client), &bytes, step).unwrap();
        assert!(messages == expected, "in steps of {step}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    for (masked, sender) in [(true, Sender::Client), (false, Sender::Upstream)] {
        let mut messages: Vec<Message> = [0, 1, 125, 126, 65_535, 65_536]
            .iter()
            .map(|length| message(MessageKind::Binary, &vec![b'x'; *length]))
            .collect();
        messages.push(Message {
            code: Some(4000),
            ..message(MessageKind::Close, b"bye")
        });
        let mut bytes = BytesMut::new();
        for message in &messages {
            encode(message, false, masked, &mut bytes);
        }
        let read = decode(&mut decoder(sender), &bytes, 1000).unwrap();
        assert!(read == messages, "masked: {masked}");
    }
}

#[test]
fn control_frames_never_grow_too_long() {
    let reason = "ü".repeat(100);
    let close = Message {
        code: Some(1000),
        ..message(MessageKind::Close, reason.as_bytes())
    };
    let mut bytes = BytesMut::new();
    encode(&close, false, false, &mut bytes);
    let read = decode(&mut decoder(Sender::Upstream), &bytes, 1000).unwrap();
    assert_eq!(read[0].data, "ü".repeat(61));
}

#[test]
fn violations_have_their_codes() {
    let client = |first: u8, payload: &[u8]| frame(first, true, payload);
    let mut announced = vec![0x82, MASKED | 127];
    announced.extend((1_u64 << 40).to_be_bytes());
    let mut negative = vec![0x82, MASKED | 127];
    negative.extend(u64::MAX.to_be_bytes());
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("opcode", client(0x83, b""), code::PROTOCOL_ERROR),
        ("control opcode", client(0x8B, b""), code::PROTOCOL_ERROR),
        (
            "second reserved bit",
            client(0xA1, b""),
            code::PROTOCOL_ERROR,
        ),
        (
            "third reserved bit",
            client(0x91, b""),
            code::PROTOCOL_ERROR,
        ),
        ("compressed", client(0xC1, b""), code::PROTOCOL_ERROR),
        ("not masked", frame(0x81, false, b"x"), code::PROTOCOL_ERROR),
        ("fragmented ping", client(0x09, b""), code::PROTOCOL_ERROR),
        ("long ping", client(0x89, &[0; 126]), code::PROTOCOL_ERROR),
        (
            "nothing to continue",
            client(0x80, b""),
            code::PROTOCOL_ERROR,
        ),
        (
            "message in message",
            [client(0x01, b"a"), client(0x81, b"b")].concat(),
            code::PROTOCOL_ERROR,
        ),
        (
            "long form of a short length",
            vec![0x82, MASKED | 126, 0, 5],
            code::PROTOCOL_ERROR,
        ),
        ("negative length", negative, code::PROTOCOL_ERROR),
        ("a terabyte", announced, code::TOO_BIG),
        (
            "one byte too many",
            client(0x82, &vec![0; (1 << 20) + 1]),
            code::TOO_BIG,
        ),
        (
            "too long in sum",
            [
                client(0x02, &vec![0; 1 << 19]),
                client(0x80, &vec![0; (1 << 19) + 1]),
            ]
            .concat(),
            code::TOO_BIG,
        ),
        ("text", client(0x81, &[0xC3]), code::INVALID_DATA),
        (
            "text cut within a character across frames",
            [client(0x01, &[0xC3]), client(0x80, &[0x28])].concat(),
            code::INVALID_DATA,
        ),
        ("half a code", client(0x88, &[3]), code::PROTOCOL_ERROR),
        (
            "code 1005",
            client(0x88, &1005_u16.to_be_bytes()),
            code::PROTOCOL_ERROR,
        ),
        (
            "code 999",
            client(0x88, &999_u16.to_be_bytes()),
            code::PROTOCOL_ERROR,
        ),
        (
            "code 5000",
            client(0x88, &5000_u16.to_be_bytes()),
            code::PROTOCOL_ERROR,
        ),
        ("reason", client(0x88, &[3, 0xE8, 0xFF]), code::INVALID_DATA),
    ];
    for (what, bytes, expected) in cases {
        for step in [1, bytes.len()] {
            let violation = decode(&mut decoder(Sender::Client), &bytes, step);
            let violation = violation.expect_err(what);
            assert_eq!(violation.code, expected, "{what}: {}", violation.reason);
        }
    }
    let masked = decode(&mut decoder(Sender::Upstream), &client(0x81, b"x"), 100);
    assert_eq!(masked.unwrap_err().code, code::PROTOCOL_ERROR);
}

#[test]
fn the_limit_is_judged_by_the_header_alone() {
    let mut small = Decoder::new(Sender::Upstream, Compression::Off, 10);
    small.push(&[0x82, 11]);
    assert_eq!(small.next().unwrap_err().code, code::TOO_BIG);
    let mut small = Decoder::new(Sender::Upstream, Compression::Off, 10);
    let bytes = [frame(0x82, false, &[1; 10]), frame(0x8A, false, &[2; 125])].concat();
    assert_eq!(decode(&mut small, &bytes, 5).unwrap().len(), 2);
}

#[test]
fn compressed_messages_pass_or_are_opened() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let bytes = [
        frame(0x41, false, &hello[..3]),
        frame(0x80, false, &hello[3..]),
    ]
    .concat();
    let read = |compression| {
        let mut decoder = Decoder::new(Sender::Upstream, compression, 1000);
        decoder.push(&bytes);
        decoder.next().unwrap().unwrap()
    };
    let passed = read(Compression::Passed);
    assert_eq!(passed.wire, Wire::Compressed);
    assert_eq!(&passed.message.data[..], &hello);
    let opened = read(Compression::Opened);
    assert_eq!(opened.message.data, "Hello");
    assert_eq!(opened.wire, Wire::Opened(Bytes::copy_from_slice(&hello)));
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = decoder(Sender::Client);
    let bytes = frame(0x82, true, &vec![1; 100_000]);
    assert_eq!(decode(&mut decoder, &bytes, 4096).unwrap().len(), 1);
    assert_eq!(decoder.unread.capacity(), 0);
    assert!(decoder.partial.is_none());
    assert_eq!(decoder.control.capacity(), 0);
}

#[test]
fn masks_apply_at_any_offset() {
    let plain: Vec<u8> = (0..100).collect();
    for phase in 0..4 {
        for length in [0, 1, 5, 8, 9, 63, 100] {
            let mut bytes = plain[..length].to_vec();
            apply_mask(&mut bytes, MASK, phase);
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(*byte, plain[index] ^ MASK[(index + phase) % 4]);
            }
        }
    }
}
