//! What a revision is made of, as the management API shows it: names, base paths, resources.
//!
//! Reads only as much of each file as answers need, so that a revision that is still being put together can be shown.
//! Refuses to judge: what is wrong with a bundle is found by its compilation.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::entities::BundleKind;
use super::entity_set::Files;
use super::xml::{Document, Element, Limits};

/// A kind of piece of a revision that is one XML file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Policy,
    Proxy,
    Target,
    SharedFlow,
}

impl Piece {
    /// The piece of a path segment of the management API, which is also that of a bundle.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "policies" => Some(Self::Policy),
            "proxies" => Some(Self::Proxy),
            "targets" => Some(Self::Target),
            "sharedflows" => Some(Self::SharedFlow),
            _ => None,
        }
    }

    /// The folder in the bundle.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Policy => "policies",
            Self::Proxy => "proxies",
            Self::Target => "targets",
            Self::SharedFlow => "sharedflows",
        }
    }

    /// Whether bundles of a kind have such pieces.
    pub fn belongs_to(self, kind: BundleKind) -> bool {
        match self {
            Self::Policy => true,
            Self::Proxy | Self::Target => kind == BundleKind::Proxy,
            Self::SharedFlow => kind == BundleKind::SharedFlow,
        }
    }

    /// The name of the root element; none for policies, which have many.
    pub fn root(self) -> Option<&'static str> {
        match self {
            Self::Policy => None,
            Self::Proxy => Some("ProxyEndpoint"),
            Self::Target => Some("TargetEndpoint"),
            Self::SharedFlow => Some("SharedFlow"),
        }
    }
}

/// A proxy endpoint as far as answers and conflicts need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyEndpoint {
    pub name: String,
    /// With a leading slash and no trailing one; `/` for everything.
    pub base_path: String,
    /// As written; empty for the built-in ones.
    pub virtual_hosts: Vec<String>,
    /// Route rules: name, condition, target endpoint, URL.
    routes: Vec<Value>,
}

/// The files of one folder with the names of their root elements. Files that cannot be read go by their file name.
pub fn pieces(files: &Files, piece: Piece) -> Vec<(String, Arc<str>)> {
    let mut found: Vec<(String, Arc<str>)> = files
        .iter()
        .filter(|(path, _)| is_piece(path, piece))
        .map(|(path, content)| {
            let name = parse(path, content)
                .and_then(|document| document.root().attribute("name").map(str::to_owned))
                .unwrap_or_else(|| stem(path).to_owned());
            (name, Arc::clone(path))
        })
        .collect();
    found.sort();
    found
}

/// The path of the piece of a name.
pub fn path_of(files: &Files, piece: Piece, name: &str) -> Option<Arc<str>> {
    pieces(files, piece)
        .into_iter()
        .find(|(of, _)| of == name)
        .map(|(_, path)| path)
}

fn is_piece(path: &str, piece: Piece) -> bool {
    path.strip_prefix(piece.folder())
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|file| file.ends_with(".xml") && !file.contains('/'))
}

fn stem(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".xml").unwrap_or(file)
}

fn parse(path: &str, content: &[u8]) -> Option<Document> {
    Document::parse_bytes(path, content, Limits::CONFIGURATION).ok()
}

/// The resources: type and name.
pub fn resources(files: &Files) -> Vec<(String, String)> {
    files
        .keys()
        .filter_map(|path| path.strip_prefix("resources/")?.split_once('/'))
        .map(|(kind, name)| (kind.to_owned(), name.to_owned()))
        .collect()
}

/// The proxy endpoints that can be read.
pub fn proxy_endpoints(files: &Files) -> Vec<ProxyEndpoint> {
    files
        .iter()
        .filter(|(path, _)| is_piece(path, Piece::Proxy))
        .filter_map(|(path, content)| {
            let document = parse(path, content)?;
            Some(proxy_endpoint(document.root(), stem(path)))
        })
        .collect()
}

fn proxy_endpoint(root: Element<'_>, stem: &str) -> ProxyEndpoint {
    let connection = root
        .child("HTTPProxyConnection")
        .or_else(|| root.child("HttpProxyConnection"));
    let text = |element: Element<'_>| element.text().trim().to_owned();
    let route = |rule: Element<'_>| {
        json!({
            "name": rule.attribute("name").unwrap_or_default(),
            "condition": rule.child("Condition").map(text),
            "targetEndpoint": rule.child("TargetEndpoint").map(text),
            "uRL": rule.child("URL").map(text),
        })
    };
    ProxyEndpoint {
        name: root.attribute("name").unwrap_or(stem).to_owned(),
        base_path: base_path(
            &connection
                .and_then(|connection| connection.child("BasePath"))
                .map(text)
                .unwrap_or_default(),
        ),
        virtual_hosts: connection.map_or_else(Vec::new, |connection| {
            connection
                .children_named("VirtualHost")
                .map(text)
                .filter(|name| !name.is_empty())
                .collect()
        }),
        routes: root.children_named("RouteRule").map(route).collect(),
    }
}

/// A base path as it is compared: with a leading slash, without a trailing one.
pub fn base_path(text: &str) -> String {
    format!("/{}", text.trim().trim_matches('/'))
}

/// A base path below the prefix of a deployment.
pub fn prefixed(prefix: &str, path: &str) -> String {
    base_path(&format!("{}{path}", prefix.trim_end_matches('/')))
}

/// The answer for one proxy endpoint, target endpoint, shared flow or policy.
pub fn show_piece(piece: Piece, path: &str, content: &[u8]) -> Option<Value> {
    let document = parse(path, content)?;
    let root = document.root();
    if piece == Piece::Proxy {
        let endpoint = proxy_endpoint(root, stem(path));
        let virtual_hosts = if endpoint.virtual_hosts.is_empty() {
            vec!["default".to_owned(), "secure".to_owned()]
        } else {
            endpoint.virtual_hosts
        };
        return Some(json!({
            "connection": {
                "basePath": endpoint.base_path,
                "connectionType": "httpConnection",
                "virtualHost": virtual_hosts,
            },
            "connectionType": "httpConnection",
            "description": root.child_text("Description").unwrap_or_default().trim(),
            "faultRules": [],
            "flows": flow_names(root),
            "name": endpoint.name,
            "routeRule": endpoint.routes,
            "type": "Proxy",
        }));
    }
    let name = root.attribute("name").unwrap_or_else(|| stem(path));
    Some(match piece {
        Piece::Policy => json!({
            "continueOnError": root.attribute("continueOnError") == Some("true"),
            "displayName": root.child_text("DisplayName").unwrap_or_default().trim(),
            "enabled": root.attribute("enabled") != Some("false"),
            "name": name,
            "policyType": root.name(),
        }),
        Piece::Target => {
            let url = root
                .child("HTTPTargetConnection")
                .or_else(|| root.child("HttpTargetConnection"))
                .and_then(|connection| connection.child_text("URL"))
                .map(|url| url.trim().to_owned());
            json!({
                "connection": {"connectionType": "httpConnection", "uRL": url},
                "flows": flow_names(root),
                "name": name,
                "type": "Target",
            })
        }
        Piece::SharedFlow | Piece::Proxy => json!({"name": name, "type": "SharedFlow"}),
    })
}

fn flow_names(root: Element<'_>) -> Vec<Value> {
    root.child("Flows")
        .into_iter()
        .flat_map(|flows| flows.children_named("Flow"))
        .map(|flow| json!({"name": flow.attribute("name").unwrap_or_default()}))
        .collect()
}

/// What the base configuration says about itself: description and display name.
pub fn about(files: &Files) -> (String, String) {
    let base = files
        .iter()
        .find(|(path, _)| !path.contains('/') && path.ends_with(".xml"));
    let Some(document) = base.and_then(|(path, content)| parse(path, content)) else {
        return Default::default();
    };
    let text = |name: &str| {
        document
            .root()
            .child_text(name)
            .map_or_else(String::new, |text| text.trim().to_owned())
    };
    (text("Description"), text("DisplayName"))
}

/// The target servers that the targets name.
pub fn target_servers(files: &Files) -> BTreeSet<String> {
    files
        .iter()
        .filter(|(path, _)| is_piece(path, Piece::Target))
        .filter_map(|(path, content)| parse(path, content))
        .flat_map(|document| {
            let nodes = document.node().descendants();
            let servers = nodes
                .filter_map(|node| node.element())
                .filter(|element| element.name() == "Server")
                .filter_map(|server| server.attribute("name").map(str::to_owned));
            servers.collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter()
            .map(|(path, text)| ((*path).into(), text.as_bytes().into()))
            .collect()
    }

    #[test]
    fn revisions_are_described_from_their_files() {
        let files = files(&[
            (
                "p.xml",
                "<APIProxy name='p'><Description> d </Description></APIProxy>",
            ),
            (
                "proxies/file.xml",
                "<ProxyEndpoint name='default'><HTTPProxyConnection><BasePath>x/y/</BasePath>\
                 <VirtualHost>secure</VirtualHost></HTTPProxyConnection>\
                 <RouteRule name='r'><TargetEndpoint>t</TargetEndpoint></RouteRule></ProxyEndpoint>",
            ),
            ("policies/A.xml", "<AssignMessage name='Set It'/>"),
            ("policies/broken.xml", "<a"),
            ("policies/notes.txt", "x"),
            (
                "targets/t.xml",
                "<TargetEndpoint name='t'><HTTPTargetConnection><LoadBalancer><Server name='s1'/></LoadBalancer>\
                 </HTTPTargetConnection></TargetEndpoint>",
            ),
            ("resources/jsc/lib/a.js", ""),
        ]);
        let endpoint = &proxy_endpoints(&files)[0];
        assert_eq!(endpoint.name, "default");
        assert_eq!(endpoint.base_path, "/x/y");
        assert_eq!(endpoint.virtual_hosts, ["secure"]);
        let names: Vec<String> = pieces(&files, Piece::Policy)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["Set It", "broken"]);
        assert_eq!(
            path_of(&files, Piece::Policy, "Set It").as_deref(),
            Some("policies/A.xml")
        );
        assert_eq!(
            resources(&files),
            [("jsc".to_owned(), "lib/a.js".to_owned())]
        );
        assert_eq!(about(&files).0, "d");
        assert!(target_servers(&files).contains("s1"));
        let shown = show_piece(Piece::Proxy, "proxies/file.xml", &files["proxies/file.xml"]);
        assert_eq!(shown.unwrap()["connection"]["basePath"], "/x/y");
    }

    #[test]
    fn base_paths_have_one_form() {
        for (text, path) in [("", "/"), ("/", "/"), ("a", "/a"), ("/a/b/", "/a/b")] {
            assert_eq!(base_path(text), path);
        }
        assert_eq!(prefixed("/v1/", "/a"), "/v1/a");
        assert_eq!(prefixed("/", "/a"), "/a");
        assert_eq!(prefixed("/v1", "/"), "/v1");
    }
}
