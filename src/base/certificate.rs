//! What certificates say: names, serial numbers, purposes, and where to ask about them.
//!
//! The TLS library verifies; these are the parts of a certificate that rules, headers and revocation need and that the
//! library does not show.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use boring::nid::Nid;
use boring::x509::{X509NameRef, X509Ref};
use x509_cert::der::{Decode, asn1::ObjectIdentifier};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CrlDistributionPoints, ExtendedKeyUsage};

/// Names of one certificate that are looked at.
pub const NAMES_MAX: usize = 256;
/// Addresses to ask about one certificate.
const ADDRESSES_MAX: usize = 4;

const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const OCSP_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// What a certificate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// A subject's alternative names, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    pub dns: Vec<String>,
    pub email: Vec<String>,
    pub uri: Vec<String>,
    pub address: Vec<IpAddr>,
}

impl AlternativeNames {
    /// The names of a certificate; those that are not text are left out.
    pub fn of(certificate: &X509Ref) -> Self {
        let mut names = Self::default();
        let all = certificate.subject_alt_names();
        for name in all.iter().flatten().take(NAMES_MAX) {
            if let Some(text) = name.dnsname() {
                names.dns.push(text.to_owned());
            } else if let Some(text) = name.email() {
                names.email.push(text.to_owned());
            } else if let Some(text) = name.uri() {
                names.uri.push(text.to_owned());
            } else if let Some(bytes) = name.ipaddress() {
                names.address.extend(address(bytes));
            }
        }
        names
    }

    /// All of them as text, names before addresses.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let names = self.dns.iter().chain(&self.email).chain(&self.uri);
        let addresses = self.address.iter().map(IpAddr::to_string);
        names.cloned().chain(addresses)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(sixteen).into())
}

/// The first common name of a certificate's subject.
pub fn common_name(certificate: &X509Ref) -> Option<String> {
    let name = certificate.subject_name();
    let entry = name.entries_by_nid(Nid::COMMONNAME).next()?;
    entry.data().as_utf8().ok().map(|text| text.to_string())
}

/// A name as RFC 2253 writes it, the most specific part first: `CN=alice,O=Shop`.
pub fn distinguished_name(name: &X509NameRef) -> Option<String> {
    // The library's flags: escapes, UTF-8 and unknown forms as RFC 2253 has them (0x317), `,` and `+` between parts
    // (1 << 16), parts in reverse (1 << 20), unknown types in hexadecimal (1 << 24).
    const RFC_2253: i32 = 0x317 | 1 << 16 | 1 << 20 | 1 << 24;
    name.print_ex(RFC_2253)
}

/// The serial number as upper-case hexadecimal without leading zeros.
pub fn serial_number(certificate: &X509Ref) -> Option<String> {
    let number = certificate.serial_number().to_bn().ok()?;
    number.to_hex_str().ok().map(|text| text.to_string())
}

/// May the certificate be used so? One that names no purposes may be used for all. `der` is the whole certificate.
pub fn allows(der: &[u8], purpose: Purpose) -> bool {
    let Ok(certificate) = x509_cert::Certificate::from_der(der) else {
        return false;
    };
    let wanted = match purpose {
        Purpose::Server => SERVER,
        Purpose::Client => CLIENT,
    };
    match certificate.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(None) => true,
        Ok(Some((_, usages))) => usages
            .0
            .iter()
            .any(|usage| *usage == wanted || *usage == ANY_PURPOSE),
        Err(_) => false,
    }
}

/// Where to ask whether a certificate was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationSources {
    /// URLs of OCSP responders.
    pub responders: Vec<String>,
    /// URLs of lists of revoked certificates.
    pub lists: Vec<String>,
}

impl RevocationSources {
    /// Those that a certificate names, `http` and `https` only.
    pub fn of(der: &[u8]) -> Self {
        let mut sources = Self::default();
        let Ok(certificate) = x509_cert::Certificate::from_der(der) else {
            return sources;
        };
        let certificate = certificate.tbs_certificate;
        if let Ok(Some((_, access))) = certificate.get::<AuthorityInfoAccessSyntax>() {
            let of_responders = access.0.iter().filter(|it| it.access_method == OCSP_ACCESS);
            sources.responders = of_responders
                .filter_map(|it| url(&it.access_location))
                .take(ADDRESSES_MAX)
                .collect();
        }
        if let Ok(Some((_, points))) = certificate.get::<CrlDistributionPoints>() {
            sources.lists = points
                .0
                .iter()
                .filter_map(|point| match &point.distribution_point {
                    Some(DistributionPointName::FullName(names)) => Some(names),
                    _ => None,
                })
                .flatten()
                .filter_map(url)
                .take(ADDRESSES_MAX)
                .collect();
        }
        sources
    }
}

fn url(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(text) => Some(text.as_str())
            .filter(|text| text.starts_with("http://") || text.starts_with("https://"))
            .map(str::to_owned),
        _ => None,
    }
}
