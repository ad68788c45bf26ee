//! A name server on loopback: answers A, AAAA and SRV as the test says, or with bytes that are no answer at all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// Records with the bytes of their data, or the bytes to put after the question instead.
#[derive(Clone)]
enum Zone {
    Records(Vec<Vec<u8>>, u32),
    Raw(Vec<u8>),
}

type Zones = Arc<Mutex<HashMap<(String, u16), Zone>>>;

/// The server; it ends with the test.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zones: Zones,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = socket.local_addr().expect("an address");
        let zones = Zones::default();
        let (served, alive) = (Arc::clone(&zones), Arc::downgrade(&zones));
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        std::thread::spawn(move || {
            drop(served);
            let mut question = [0; 1500];
            while let Some(zones) = alive.upgrade() {
                if let Ok((length, client)) = socket.recv_from(&mut question)
                    && let Some(answer) = answer(&zones, &question[..length])
                {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, zones }
    }

    /// The addresses of a name, of both kinds.
    pub(crate) fn addresses(&self, name: &str, seconds: u32, addresses: &[&str]) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address.parse().expect("an address") {
                IpAddr::V4(address) => v4.push(address.octets().to_vec()),
                IpAddr::V6(address) => v6.push(address.octets().to_vec()),
            }
        }
        for (kind, records) in [(A, v4), (AAAA, v6)] {
            if !records.is_empty() {
                self.set(name, kind, Zone::Records(records, seconds));
            }
        }
    }

    /// Weight, port and target of service records of equal priority.
    pub(crate) fn services(&self, name: &str, seconds: u32, records: &[(u16, u16, &str)]) {
        let data = records.iter().map(|(weight, port, target)| {
            let mut data = vec![0, 1];
            data.extend(weight.to_be_bytes());
            data.extend(port.to_be_bytes());
            data.extend(encoded(target));
            data
        });
        self.set(name, SRV, Zone::Records(data.collect(), seconds));
    }

    /// Answers questions for service records with one record of these bytes.
    pub(crate) fn broken_service(&self, name: &str, data: &[u8]) {
        self.set(name, SRV, Zone::Records(vec![data.to_vec()], 60));
    }

    /// Answers questions for service records with rubbish behind the question.
    pub(crate) fn rubbish(&self, name: &str, bytes: &[u8]) {
        self.set(name, SRV, Zone::Raw(bytes.to_vec()));
    }

    fn set(&self, name: &str, kind: u16, zone: Zone) {
        let mut zones = self.zones.lock().expect("a lock");
        zones.insert((name.to_owned(), kind), zone);
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The answer to a question; none to what is no question.
fn answer(zones: &Zones, question: &[u8]) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let asked = question.get(12..at + 4)?;
    let name = labels.join(".");
    let zones = zones.lock().expect("a lock");
    let known = zones.keys().any(|(known, _)| *known == name);
    let zone = zones.get(&(name, kind)).cloned();
    drop(zones);
    // A response, recursion desired and available; no such name when nothing at all is known of it.
    let code = if known { 0x80 } else { 0x83 };
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, code, 0, 1]);
    let (records, seconds) = match zone {
        Some(Zone::Records(records, seconds)) => (records, seconds),
        Some(Zone::Raw(bytes)) => {
            answer.extend([0, 1, 0, 0, 0, 0]);
            answer.extend(asked);
            answer.extend(bytes);
            return Some(answer);
        }
        None => (Vec::new(), 0),
    };
    answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(asked);
    for data in records {
        // The name of the question, by pointer.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(seconds.to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
