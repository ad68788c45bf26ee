//! The host names under which services of the mesh can be written: `NAME.connect.consul` and its like.
//!
//! The name in its usual spelling is also that of the roster which keeps the service's instances. Start at
//! [`MeshName::of_host`].

use std::fmt;

use super::registration::DestinationKind;

/// Longest name that is looked at, in bytes: that of DNS.
const NAME_BYTES_MAX: usize = 253;

/// A service of the mesh, or a prepared query that finds one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshName {
    pub kind: DestinationKind,
    pub name: String,
    /// Empty: the agent's own.
    pub datacenter: String,
}

impl MeshName {
    /// Reads `NAME.connect.consul`, `NAME.connect.DC.consul`, `QUERY.query.consul` or `QUERY.query.DC.consul`. Any other
    /// host is none of the mesh. Letter case and a final dot do not matter.
    pub fn of_host(host: &str) -> Option<Self> {
        if host.len() > NAME_BYTES_MAX {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let labels: Vec<&str> = host.strip_suffix(".consul")?.split('.').collect();
        let is_word = |label: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.bytes().all(plain)
        };
        if !labels.iter().all(is_word) {
            return None;
        }
        let (rest, kind, datacenter) = match labels.as_slice() {
            [rest @ .., "connect"] => (rest, DestinationKind::Service, ""),
            [rest @ .., "connect", datacenter] => (rest, DestinationKind::Service, *datacenter),
            [rest @ .., "query"] => (rest, DestinationKind::PreparedQuery, ""),
            [rest @ .., "query", datacenter] => (rest, DestinationKind::PreparedQuery, *datacenter),
            _ => return None,
        };
        // A query's name may have dots, a service's cannot be written so.
        let fits = match kind {
            DestinationKind::Service => rest.len() == 1,
            DestinationKind::PreparedQuery => !rest.is_empty(),
        };
        fits.then(|| Self {
            kind,
            name: rest.join("."),
            datacenter: datacenter.to_owned(),
        })
    }

    /// The same, and also the bare name of a service.
    pub fn of_service(text: &str) -> Option<Self> {
        Self::of_host(text).or_else(|| Self::of_host(&format!("{text}.connect.consul")))
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DestinationKind::Service => "connect",
            DestinationKind::PreparedQuery => "query",
        };
        write!(f, "{}.{kind}", self.name)?;
        if !self.datacenter.is_empty() {
            write!(f, ".{}", self.datacenter)?;
        }
        f.write_str(".consul")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_mesh_are_read() {
        for (host, shown) in [
            ("web.connect.consul", Some("web.connect.consul")),
            ("Web.Connect.Consul.", Some("web.connect.consul")),
            ("web.connect.dc2.consul", Some("web.connect.dc2.consul")),
            ("geo.db.query.consul", Some("geo.db.query.consul")),
            ("db.query.dc2.consul", Some("db.query.dc2.consul")),
            ("web.service.consul", None),
            ("v1.web.connect.consul", None),
            ("connect.consul", None),
            (".connect.consul", None),
            ("web.connect.consul.test", None),
            ("web.connect..consul", None),
            ("web", None),
        ] {
            let read = MeshName::of_host(host).map(|name| name.to_string());
            assert_eq!(read.as_deref(), shown, "{host}");
        }
        let bare = MeshName::of_service("web").map(|name| name.to_string());
        assert_eq!(bare.as_deref(), Some("web.connect.consul"));
        assert_eq!(MeshName::of_service("we/b"), None);
    }
}
