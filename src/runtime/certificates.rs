//! The certificates shown to clients, chosen by the server name in the ClientHello.
//!
//! Owns the table from server names to certificates, and which of a certificate's pairs a client can use. Refuses to
//! know when a handshake happens and what else it settles. A change copies a few of the table's shards and leaves the
//! table that handshakes in flight use as it is. Start at [`CertificateTable::select`] and [`ServerCertificate::show`].

use std::net::IpAddr;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use boring::error::ErrorStack;
use boring::nid::Nid;
use boring::ssl::{ClientHello, ExtensionType};
use uuid::Uuid;

use crate::base::pem::{KeyKind, KeyPair};
use crate::model::plan::CertificatePlan;
use crate::runtime::stapling::Staple;

/// Most pairs of one certificate: each client uses one of two kinds of keys.
const PAIRS_MAX: usize = 2;
/// Shards of each map: a change copies one.
const SHARDS: usize = 64;

/// A certificate ready for handshakes: PEM parsed, keys checked.
pub struct ServerCertificate {
    pub plan: Arc<CertificatePlan>,
    /// One or two.
    pairs: Vec<KeyPair>,
    /// In the order of the pairs.
    staples: Vec<Option<Arc<Staple>>>,
}

impl ServerCertificate {
    /// Parses the plan's pairs. The error says which certificate and what is wrong with it.
    pub fn link(plan: Arc<CertificatePlan>) -> Result<Arc<Self>, String> {
        let fail = |what: String| format!("certificate '{}': {what}", plan.id);
        if plan.pairs.is_empty() || plan.pairs.len() > PAIRS_MAX {
            return Err(fail(format!(
                "has {} pairs of certificate and key, 1 to {PAIRS_MAX} are allowed",
                plan.pairs.len()
            )));
        }
        let pairs = plan
            .pairs
            .iter()
            .map(|pair| KeyPair::parse(&pair.certificate, pair.key.expose()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| fail(error.to_string()))?;
        if let [first, second] = pairs.as_slice()
            && first.kind == second.kind
        {
            return Err(fail(
                "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), \
                 the provided certificates were both of the same type"
                    .to_owned(),
            ));
        }
        let staples = pairs.iter().map(Staple::of).collect();
        Ok(Arc::new(Self {
            plan,
            pairs,
            staples,
        }))
    }

    /// Puts the pair that suits the client into its handshake. For a "select certificate" callback.
    pub fn show(&self, hello: &mut ClientHello<'_>) -> Result<(), ErrorStack> {
        let Some(index) = self.suiting(&Abilities::of(hello)) else {
            return Ok(());
        };
        let Some(pair) = self.pairs.get(index) else {
            return Ok(());
        };
        let ssl = hello.ssl_mut();
        ssl.set_certificate(&pair.leaf)?;
        for intermediate in &pair.chain {
            ssl.add_chain_cert(intermediate)?;
        }
        ssl.set_private_key(&pair.key)?;
        let staple = self.staples.get(index).and_then(Option::as_ref);
        match staple.and_then(|staple| staple.current()) {
            Some(answer) => ssl.set_ocsp_status(&answer),
            None => Ok(()),
        }
    }

    /// The answers to keep fresh for its pairs.
    pub fn staples(&self) -> impl Iterator<Item = &Arc<Staple>> {
        self.staples.iter().flatten()
    }

    /// The pairs: one, or two with different kinds of keys.
    pub fn pairs(&self) -> &[KeyPair] {
        &self.pairs
    }

    /// The cheapest pair that the client can check; the first one if it can check none, and the handshake says so.
    fn suiting(&self, abilities: &Abilities<'_>) -> Option<usize> {
        match self.pairs.as_slice() {
            [] => None,
            [_] => Some(0),
            pairs => pairs
                .iter()
                .enumerate()
                .filter(|(_, pair)| abilities.suit(pair))
                // RSA signs some twenty times slower.
                .min_by_key(|(_, pair)| pair.kind == KeyKind::Rsa)
                .map(|(index, _)| index)
                .or(Some(0)),
        }
    }
}

/// What a ClientHello says about signatures.
struct Abilities<'a> {
    /// Signature schemes, two bytes each; `None` when the client does not say (TLS 1.2, RFC 5246 §7.4.1.4.1).
    schemes: Option<&'a [u8]>,
    /// Cipher suites, two bytes each.
    suites: &'a [u8],
}

impl<'a> Abilities<'a> {
    fn of(hello: &'a ClientHello<'_>) -> Self {
        // The extension is a list preceded by its length.
        let schemes = hello
            .get_extension(ExtensionType::SIGNATURE_ALGORITHMS)
            .map(|extension| extension.get(2..).unwrap_or_default());
        Self {
            schemes,
            suites: hello.ciphers(),
        }
    }

    fn suit(&self, pair: &KeyPair) -> bool {
        /// `rsa_pss_rsae_*` and `rsa_pkcs1_*`.
        const RSA: &[u16] = &[0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0201];
        const ED25519: &[u16] = &[0x0807];
        let schemes = match pair.kind {
            KeyKind::Rsa => return self.schemes.is_none_or(|offered| has(offered, RSA)),
            KeyKind::Ed25519 => ED25519,
            // Since TLS 1.3 a scheme names the curve of the key.
            KeyKind::Ecdsa => match pair.curve() {
                Some(Nid::X9_62_PRIME256V1) => &[0x0403],
                Some(Nid::SECP384R1) => &[0x0503],
                Some(Nid::SECP521R1) => &[0x0603],
                _ => return false,
            },
        };
        self.schemes.is_some_and(|offered| has(offered, schemes)) && self.has_ecdsa_suite()
    }

    /// Suites of TLS 1.3 fit every key; before, their names tell.
    fn has_ecdsa_suite(&self) -> bool {
        const TLS13: std::ops::RangeInclusive<u16> = 0x1301..=0x1305;
        /// `TLS_ECDHE_ECDSA_WITH_*`: AES-128/256 CBC, their SHA-2 forms, GCM, ChaCha20.
        const ECDSA: &[u16] = &[
            0xc009, 0xc00a, 0xc023, 0xc024, 0xc02b, 0xc02c, 0xcca9, 0xc0ac, 0xc0ad,
        ];
        numbers(self.suites).any(|suite| TLS13.contains(&suite) || ECDSA.contains(&suite))
    }
}

fn has(offered: &[u8], wanted: &[u16]) -> bool {
    numbers(offered).any(|number| wanted.contains(&number))
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| {
        pair.iter()
            .fold(0, |number, byte| number << 8 | u16::from(*byte))
    })
}

/// All server certificates. Cloning copies some 250 pointers.
#[derive(Clone)]
pub struct CertificateTable {
    by_id: Sharded<Uuid>,
    /// `name`.
    exact: Sharded<Box<str>>,
    /// What follows the star of `*.suffix`, with the dot.
    suffixes: Sharded<Box<str>>,
    /// What precedes the star of `prefix.*`, with the dot.
    prefixes: Sharded<Box<str>>,
    /// `*`.
    any: Option<Arc<ServerCertificate>>,
    default: Option<Arc<ServerCertificate>>,
}

impl CertificateTable {
    /// A table that shows `default` where no name fits.
    pub fn new(default: Option<Arc<ServerCertificate>>) -> Self {
        Self {
            by_id: Sharded::default(),
            exact: Sharded::default(),
            suffixes: Sharded::default(),
            prefixes: Sharded::default(),
            any: None,
            default,
        }
    }

    /// Replaces what is shown where no name fits.
    pub fn set_default(&mut self, default: Option<Arc<ServerCertificate>>) {
        self.default = default;
    }

    /// Adds a certificate, or replaces the one with its id. A server name that two certificates claim goes to the one
    /// added last.
    pub fn insert(&mut self, certificate: Arc<ServerCertificate>) {
        self.remove(&certificate.plan.id);
        for name in &certificate.plan.server_names {
            let shown = Arc::clone(&certificate);
            match Pattern::of(name) {
                Pattern::Any => self.any = Some(shown),
                Pattern::Suffix(suffix) => self.suffixes.insert(suffix.into(), shown),
                Pattern::Prefix(prefix) => self.prefixes.insert(prefix.into(), shown),
                Pattern::Exact(name) => self.exact.insert(name.into(), shown),
            }
        }
        self.by_id.insert(certificate.plan.id, certificate);
    }

    /// Removes a certificate with its names; those that have gone to another certificate meanwhile stay there.
    pub fn remove(&mut self, id: &Uuid) {
        let Some(certificate) = self.by_id.get(id).cloned() else {
            return;
        };
        let is_its = |shown: Option<&Arc<ServerCertificate>>| {
            shown.is_some_and(|shown| Arc::ptr_eq(shown, &certificate))
        };
        for name in &certificate.plan.server_names {
            match Pattern::of(name) {
                Pattern::Any if is_its(self.any.as_ref()) => self.any = None,
                Pattern::Suffix(key) if is_its(self.suffixes.get(key)) => self.suffixes.remove(key),
                Pattern::Prefix(key) if is_its(self.prefixes.get(key)) => self.prefixes.remove(key),
                Pattern::Exact(key) if is_its(self.exact.get(key)) => self.exact.remove(key),
                _ => {}
            }
        }
        self.by_id.remove(id);
    }

    /// The certificate for this server name: that of the name itself, of `*.` and the name without its first label (only
    /// for names of three or more), of the name without its last label and `.*`, of `*`, and at last the default. Without
    /// a name, or for an address, the default.
    pub fn select(&self, server_name: Option<&str>) -> Option<&Arc<ServerCertificate>> {
        let default = self.default.as_ref();
        let Some(name) = server_name.filter(|name| !name.is_empty()) else {
            return default;
        };
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.select(Some(&name.to_ascii_lowercase()));
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.parse::<IpAddr>().is_ok() {
            return default;
        }
        let suffix = || {
            let (_, rest) = name.split_at_checked(name.find('.')?)?;
            rest.get(1..)?.contains('.').then_some(rest)
        };
        let prefix = || name.get(..=name.rfind('.')?);
        self.exact
            .get(name)
            .or_else(|| self.suffixes.get(suffix()?))
            .or_else(|| self.prefixes.get(prefix()?))
            .or(self.any.as_ref())
            .or(default)
    }

    /// All certificates, the default among them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ServerCertificate>> {
        let shards = self.by_id.shards.iter();
        shards.flat_map(|shard| shard.values()).chain(&self.default)
    }

    /// The certificate with this id.
    pub fn get(&self, id: &Uuid) -> Option<&Arc<ServerCertificate>> {
        self.by_id.get(id)
    }
}

/// A server name as configured, lower-case.
enum Pattern<'a> {
    Any,
    Suffix(&'a str),
    Prefix(&'a str),
    Exact(&'a str),
}

impl<'a> Pattern<'a> {
    fn of(name: &'a str) -> Self {
        if name == "*" {
            return Self::Any;
        }
        if let Some(suffix) = name.strip_prefix('*') {
            return Self::Suffix(suffix);
        }
        match name.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix),
            None => Self::Exact(name),
        }
    }
}

/// A map whose copies share what has not changed.
struct Sharded<K> {
    shards: Arc<[Arc<Shard<K>>]>,
    hasher: RandomState,
}

type Shard<K> = AHashMap<K, Arc<ServerCertificate>>;

impl<K: std::hash::Hash + Eq + Clone> Sharded<K> {
    fn get<Q>(&self, key: &Q) -> Option<&Arc<ServerCertificate>>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.shards.get(self.shard(key))?.get(key)
    }

    fn insert(&mut self, key: K, certificate: Arc<ServerCertificate>) {
        let shard = self.shard::<K>(&key);
        if let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(shard) {
            Arc::make_mut(shard).insert(key, certificate);
        }
    }

    fn remove<Q>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        let shard = self.shard(key);
        if let Some(shard) = Arc::make_mut(&mut self.shards).get_mut(shard) {
            Arc::make_mut(shard).remove(key);
        }
    }

    fn shard<Q: std::hash::Hash + ?Sized>(&self, key: &Q) -> usize {
        // The top bits: the map inside a shard uses the others.
        (self.hasher.hash_one(key) >> 56) as usize % SHARDS
    }
}

impl<K> Default for Sharded<K> {
    fn default() -> Self {
        let empty: Arc<Shard<K>> = Arc::default();
        Self {
            shards: vec![empty; SHARDS].into(),
            hasher: RandomState::new(),
        }
    }
}

impl<K> Clone for Sharded<K> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            hasher: self.hasher.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use boring::ssl::{
        NameType, SslAcceptor, SslConnector, SslMethod, SslStream, SslVerifyMode, SslVersion,
    };
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::base::secret::Secret;
    use crate::base::self_signed::{PemPair, default_pairs};
    use crate::model::plan::KeyPairPlan;

    fn pairs() -> Vec<KeyPairPlan> {
        let plan = |pair: PemPair| KeyPairPlan {
            certificate: pair.certificate.into(),
            key: Secret::new(pair.key),
        };
        default_pairs(1_700_000_000).unwrap().map(plan).into()
    }

    fn certificate(id: u128, pairs: &[KeyPairPlan], names: &[&str]) -> Arc<ServerCertificate> {
        ServerCertificate::link(Arc::new(CertificatePlan {
            id: Uuid::from_u128(id),
            pairs: pairs.to_vec(),
            server_names: names.iter().map(|name| (*name).into()).collect(),
        }))
        .unwrap()
    }

    fn selected(table: &CertificateTable, name: Option<&str>) -> Option<u128> {
        table.select(name).map(|shown| shown.plan.id.as_u128())
    }

    #[test]
    fn selects_by_name() {
        let pairs = &pairs()[1..];
        let mut table = CertificateTable::new(Some(certificate(99, pairs, &[])));
        table.insert(certificate(1, pairs, &["www.a.test"]));
        table.insert(certificate(2, pairs, &["*.a.test", "*.test"]));
        table.insert(certificate(3, pairs, &["www.a.*", "a.*"]));
        let cases = [
            (Some("www.a.test"), 1),
            (Some("WWW.A.test"), 1),
            (Some("www.a.test."), 1),
            (Some("api.a.test"), 2),
            // One label only, and only for names of three or more.
            (Some("x.api.a.test"), 99),
            (Some("a.test"), 3),
            (Some("b.test"), 99),
            (Some("www.a.example"), 3),
            (Some("localhost"), 99),
            (Some("192.0.2.1"), 99),
            (Some("::1"), 99),
            (Some(""), 99),
            (Some("."), 99),
            (None, 99),
        ];
        for (name, expected) in cases {
            assert_eq!(selected(&table, name), Some(expected), "{name:?}");
        }
        let before = table.clone();
        table.insert(certificate(4, pairs, &["*"]));
        for (name, expected) in [
            (Some("b.test"), 4),
            (Some("localhost"), 4),
            (Some("api.a.test"), 2),
            (Some("192.0.2.1"), 99),
            (None, 99),
        ] {
            assert_eq!(selected(&table, name), Some(expected), "{name:?}");
        }
        assert_eq!(selected(&before, Some("b.test")), Some(99));
    }

    #[test]
    fn names_move_between_certificates() {
        let pairs = &pairs()[1..];
        let mut table = CertificateTable::new(None);
        table.insert(certificate(1, pairs, &["a.test", "b.test"]));
        // The name moves before its old holder lets go.
        table.insert(certificate(2, pairs, &["b.test"]));
        table.insert(certificate(1, pairs, &["a.test"]));
        assert_eq!(selected(&table, Some("b.test")), Some(2));
        table.remove(&Uuid::from_u128(2));
        assert_eq!(selected(&table, Some("b.test")), None);
        assert_eq!(selected(&table, Some("a.test")), Some(1));
        assert!(table.get(&Uuid::from_u128(2)).is_none());
        table.remove(&Uuid::from_u128(7));
    }

    #[test]
    fn refuses_pairs_that_do_not_go_together() {
        let [rsa, ecdsa] = default_pairs(1_700_000_000).unwrap();
        let plan = |pairs: &[(&PemPair, &PemPair)]| {
            Arc::new(CertificatePlan {
                id: Uuid::nil(),
                pairs: pairs
                    .iter()
                    .map(|(certificate, key)| KeyPairPlan {
                        certificate: certificate.certificate.as_str().into(),
                        key: Secret::new(key.key.as_str()),
                    })
                    .collect(),
                server_names: Vec::new(),
            })
        };
        let cases = [
            (plan(&[]), "has 0 pairs"),
            (plan(&[(&rsa, &ecdsa)]), "certificate does not match key"),
            (plan(&[(&rsa, &rsa), (&rsa, &rsa)]), "different type"),
            (
                plan(&[(&rsa, &rsa), (&ecdsa, &ecdsa), (&rsa, &rsa)]),
                "has 3 pairs",
            ),
        ];
        for (plan, message) in cases {
            let error = ServerCertificate::link(plan).err().unwrap();
            assert!(error.contains(message), "{error}");
        }
    }

    /// The kind of the certificate that a client with these abilities is shown.
    fn shown(table: CertificateTable, version: SslVersion, schemes: &str) -> Option<KeyKind> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
            acceptor.set_select_certificate_callback(move |mut hello| {
                let name = hello.servername(NameType::HOST_NAME).map(ToOwned::to_owned);
                if let Some(certificate) = table.select(name.as_deref()) {
                    certificate.show(&mut hello).unwrap();
                }
                Ok(())
            });
            let (stream, _) = listener.accept().unwrap();
            // Fails where the client cannot check the certificate.
            let _ = acceptor.build().accept(stream);
        });
        let mut connector = SslConnector::builder(SslMethod::tls()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        connector.set_max_proto_version(Some(version)).unwrap();
        connector.set_sigalgs_list(schemes).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let stream: Option<SslStream<_>> = connector.build().connect("a.test", stream).ok();
        server.join().unwrap();
        let kind = stream?.ssl().peer_certificate()?.public_key().ok()?.id();
        Some(match kind {
            boring::pkey::Id::RSA => KeyKind::Rsa,
            _ => KeyKind::Ecdsa,
        })
    }

    #[test]
    fn shows_the_pair_that_the_client_can_check() {
        let both = pairs();
        let cases = [
            (
                SslVersion::TLS1_3,
                "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256",
                Some(KeyKind::Ecdsa),
            ),
            (
                SslVersion::TLS1_2,
                "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256",
                Some(KeyKind::Ecdsa),
            ),
            (
                SslVersion::TLS1_3,
                "rsa_pss_rsae_sha256",
                Some(KeyKind::Rsa),
            ),
            (SslVersion::TLS1_2, "rsa_pkcs1_sha256", Some(KeyKind::Rsa)),
            (SslVersion::TLS1_3, "ecdsa_secp384r1_sha384", None),
        ];
        for (version, schemes, expected) in cases {
            let mut table = CertificateTable::new(None);
            table.insert(certificate(1, &both, &["a.test"]));
            assert_eq!(shown(table, version, schemes), expected, "{schemes}");
        }
    }
}
