#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

//! Resolution against a name server of our own on loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{self, RData, Record, RecordType, rdata};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;

/// Longest wait for anything in these tests.
pub(in crate::runtime) const PATIENCE: Duration = Duration::from_secs(20);

/// A name server that knows what it is told and counts the questions.
pub(in crate::runtime) struct NameServer {
    pub(in crate::runtime) address: SocketAddr,
    zone: Mutex<AHashMap<(String, RecordType), Zone>>,
    questions: AtomicUsize,
}

#[derive(Clone)]
enum Zone {
    Records(Vec<(RData, u32)>),
    Fails,
}

impl NameServer {
    pub(in crate::runtime) async fn start() -> Arc<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = Arc::new(Self {
            address: socket.local_addr().unwrap(),
            zone: Mutex::default(),
            questions: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let answer = serving.answer(&question).to_vec().unwrap();
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        server
    }

    fn answer(&self, question: &Message) -> Message {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let query = question.queries.first().unwrap().clone();
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let name = query.name().to_utf8().to_lowercase();
        match self.zone.lock().get(&(name, query.query_type())) {
            Some(Zone::Records(records)) => {
                for (data, time_to_live) in records {
                    let record =
                        Record::from_rdata(query.name().clone(), *time_to_live, data.clone());
                    answer.add_answer(record);
                }
            }
            Some(Zone::Fails) => answer.metadata.response_code = ResponseCode::ServFail,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        answer
    }

    pub(in crate::runtime) fn v4(&self, name: &str, seconds: u32, addresses: &[[u8; 4]]) {
        let data = addresses
            .iter()
            .map(|address| RData::A(rdata::A(Ipv4Addr::from(*address))))
            .map(|data| (data, seconds));
        self.set(name, RecordType::A, Zone::Records(data.collect()));
    }

    fn v6(&self, name: &str, address: &str) {
        let data = RData::AAAA(rdata::AAAA(address.parse().unwrap()));
        self.set(name, RecordType::AAAA, Zone::Records(vec![(data, 60)]));
    }

    /// Priority, weight, port and target of each record.
    pub(in crate::runtime) fn services(&self, name: &str, records: &[(u16, u16, u16, &str)]) {
        let data = records.iter().map(|(priority, weight, port, target)| {
            let target = rr::Name::from_str_relaxed(format!("{target}.")).unwrap();
            let service = rdata::SRV::new(*priority, *weight, *port, target);
            (RData::SRV(service), 60)
        });
        self.set(name, RecordType::SRV, Zone::Records(data.collect()));
    }

    fn fail(&self, name: &str) {
        for kind in [RecordType::SRV, RecordType::A, RecordType::AAAA] {
            self.set(name, kind, Zone::Fails);
        }
    }

    fn forget(&self, name: &str) {
        self.zone
            .lock()
            .retain(|(known, _), _| *known != format!("{name}."));
    }

    fn set(&self, name: &str, kind: RecordType, zone: Zone) {
        self.zone.lock().insert((format!("{name}."), kind), zone);
    }

    fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    pub(in crate::runtime) fn resolver(&self) -> Arc<Resolver> {
        let options = ResolverOptions {
            name_servers: vec![self.address],
            hosts_file: "/nonexistent".into(),
            ..ResolverOptions::default()
        };
        Resolver::start(options, &tokio::runtime::Handle::current()).unwrap()
    }
}

/// Wakes a test on each change.
struct Bell(watch::Sender<u32>);

impl Watcher for Bell {
    fn changed(&self) {
        self.0.send_modify(|rings| *rings += 1);
    }
}

/// Waits until the name's answer satisfies the condition.
pub(in crate::runtime) async fn answer_when(
    name: &Name,
    mut wanted: impl FnMut(&Answer) -> bool,
) -> Answer {
    let bell = Arc::new(Bell(watch::Sender::new(0)));
    let mut rings = bell.0.subscribe();
    let watcher: Weak<Bell> = Arc::downgrade(&bell);
    name.watch(watcher);
    let waiting = async {
        loop {
            let answer = name.answer();
            if wanted(&answer) {
                return (*answer).clone();
            }
            rings.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, waiting).await.unwrap()
}

fn is_settled(answer: &Answer) -> bool {
    *answer != Answer::Pending
}

fn v4(records: &[[u8; 4]]) -> Answer {
    let records = records.iter().map(|address| AddressRecord {
        address: IpAddr::from(*address),
        service: None,
    });
    Answer::Addresses(records.collect())
}

fn service(address: [u8; 4], port: u16, weight: u16, target: &str) -> AddressRecord {
    AddressRecord {
        address: address.into(),
        service: Some(ServiceRecord {
            port,
            weight,
            target: target.into(),
        }),
    }
}

#[tokio::test]
async fn answers_as_the_records_say() {
    let server = NameServer::start().await;
    server.v4("many.test", 60, &[[192, 0, 2, 2], [192, 0, 2, 1]]);
    server.v6("six.test", "2001:db8::1");
    server.v4("n1.test", 60, &[[192, 0, 2, 11]]);
    server.v4("n2.test", 60, &[[192, 0, 2, 12]]);
    server.v4("both.test", 60, &[[192, 0, 2, 99]]);
    let records = [
        (10, 0, 8001, "n1.test"),
        (10, 5, 8002, "n2.test"),
        (20, 9, 8003, "n2.test"),
    ];
    server.services("both.test", &records);
    server.services(
        "_web._tcp.test",
        &[(1, 1, 81, "localhost"), (1, 2, 82, "gone.test")],
    );
    server.fail("broken.test");
    let resolver = server.resolver();
    let six = AddressRecord {
        address: "2001:db8::1".parse().unwrap(),
        service: None,
    };
    let both = [
        service([192, 0, 2, 11], 8001, 1, "n1.test"),
        service([192, 0, 2, 12], 8002, 5, "n2.test"),
    ];
    let cases = [
        ("many.test", v4(&[[192, 0, 2, 1], [192, 0, 2, 2]])),
        ("MANY.test.", v4(&[[192, 0, 2, 1], [192, 0, 2, 2]])),
        ("six.test", Answer::Addresses(Box::new([six]))),
        ("both.test", Answer::Addresses(Box::new(both))),
        (
            "_web._tcp.test",
            Answer::Addresses(Box::new([service([127, 0, 0, 1], 81, 1, "localhost")])),
        ),
        ("absent.test", Answer::NotFound),
        ("localhost", v4(&[[127, 0, 0, 1]])),
    ];
    for (text, expected) in cases {
        let name = resolver.name(text);
        assert_eq!(answer_when(&name, is_settled).await, expected, "{text}");
    }
    let broken = resolver.name("broken.test");
    let answer = answer_when(&broken, is_settled).await;
    assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
    let invalid = resolver.name(&"label.".repeat(60));
    let answer = answer_when(&invalid, is_settled).await;
    assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
}

#[tokio::test]
async fn follows_changes_and_shares_names() {
    let server = NameServer::start().await;
    server.v4("a.test", 0, &[[192, 0, 2, 1]]);
    let resolver = server.resolver();
    let name = resolver.name("a.test");
    assert!(Arc::ptr_eq(&name, &resolver.name("A.TEST")));
    assert_eq!(answer_when(&name, is_settled).await, v4(&[[192, 0, 2, 1]]));
    server.v4("a.test", 0, &[[192, 0, 2, 2]]);
    answer_when(&name, |answer| *answer == v4(&[[192, 0, 2, 2]])).await;
    // Fails: the old answer stays. Gone: it does not.
    server.fail("a.test");
    let asked = server.questions();
    let next = resolver.name("b.test");
    answer_when(&next, is_settled).await;
    assert!(server.questions() > asked);
    assert_eq!(*name.answer(), v4(&[[192, 0, 2, 2]]));
    server.forget("a.test");
    answer_when(&name, |answer| *answer == Answer::NotFound).await;
}

#[tokio::test]
async fn forgets_names_that_nobody_uses() {
    let server = NameServer::start().await;
    let resolver = server.resolver();
    let name = resolver.name("a.test");
    answer_when(&name, is_settled).await;
    assert_eq!(resolver.names(), 1);
    drop(name);
    assert_eq!(resolver.names(), 0);
    for n in 0..5 * SWEEP_AT {
        drop(resolver.name(&format!("n{n}.test")));
    }
    assert!(resolver.names.lock().len() <= 4 * SWEEP_AT);
}
