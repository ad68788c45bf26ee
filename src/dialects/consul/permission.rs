//! Permissions: the parts of an intention that look at HTTP requests.
//!
//! Owns the conditions on path, methods and headers and their first-match order. What is not understood is told and
//! counts against the caller: an `allow` that cannot be judged never matches, a `deny` always. Start at
//! [`PermissionList::decide`].

use http::{HeaderMap, Method};
use regex::Regex;
use serde::Deserialize;

use super::answers::nullable;
use super::intention::Action;

/// More permissions in one intention than this are not taken over.
pub const PERMISSIONS_MAX: usize = 1_000;
/// Memory of one compiled expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A permission as an intention has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Permission {
    #[serde(deserialize_with = "nullable")]
    pub action: String,
    #[serde(rename = "HTTP")]
    pub http: Option<HttpPermission>,
    #[serde(rename = "JWT")]
    pub jwt: Option<serde_json::Value>,
}

/// What a request must look like; every part that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HttpPermission {
    #[serde(deserialize_with = "nullable")]
    pub path_exact: String,
    #[serde(deserialize_with = "nullable")]
    pub path_prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub path_regex: String,
    #[serde(deserialize_with = "nullable")]
    pub methods: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub header: Vec<HeaderPermission>,
}

/// What a header must look like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HeaderPermission {
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    #[serde(deserialize_with = "nullable")]
    pub present: bool,
    #[serde(deserialize_with = "nullable")]
    pub exact: String,
    #[serde(deserialize_with = "nullable")]
    pub prefix: String,
    #[serde(deserialize_with = "nullable")]
    pub suffix: String,
    #[serde(deserialize_with = "nullable")]
    pub contains: String,
    #[serde(deserialize_with = "nullable")]
    pub regex: String,
    #[serde(deserialize_with = "nullable")]
    pub invert: bool,
    #[serde(deserialize_with = "nullable")]
    pub ignore_case: bool,
}

/// Permissions ready to judge requests.
#[derive(Debug, Clone, Default)]
pub struct PermissionList {
    rules: Vec<Rule>,
    /// What could not be understood, for the log.
    pub complaints: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    action: Action,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Always,
    Never,
    Request {
        path: PathRule,
        /// Empty: all.
        methods: Vec<Method>,
        headers: Vec<HeaderRule>,
    },
}

#[derive(Debug, Clone)]
enum PathRule {
    Any,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

#[derive(Debug, Clone)]
struct HeaderRule {
    name: http::HeaderName,
    invert: bool,
    ignore_case: bool,
    value: ValueRule,
}

#[derive(Debug, Clone)]
enum ValueRule {
    Present,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

impl PermissionList {
    /// Prepares permissions. With `tokens` the intention as a whole demands tokens, which nobody can show here: nothing
    /// is allowed.
    pub fn compile(permissions: &[Permission], tokens: bool) -> Self {
        let mut list = Self::default();
        if tokens {
            list.complain("tokens (JWT) in intentions are not supported");
        }
        for permission in permissions.iter().take(PERMISSIONS_MAX) {
            let rule = list.rule(permission, tokens);
            list.rules.push(rule);
        }
        if permissions.len() > PERMISSIONS_MAX {
            list.complain("more than 1000 permissions");
            list.rules.push(Rule {
                action: Action::Deny,
                condition: Condition::Always,
            });
        }
        list
    }

    /// The action of the first permission that the request meets; none if it meets none.
    ///
    /// `path` is normalised and without the query.
    pub fn decide(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Action> {
        let rule = self.rules.iter().find(|rule| match &rule.condition {
            Condition::Always => true,
            Condition::Never => false,
            Condition::Request {
                path: wanted,
                methods,
                headers: conditions,
            } => {
                (methods.is_empty() || methods.contains(method))
                    && wanted.holds(path)
                    && conditions.iter().all(|condition| condition.holds(headers))
            }
        });
        rule.map(|rule| rule.action)
    }

    fn complain(&mut self, what: &str) {
        self.complaints.push(what.to_owned());
    }

    fn rule(&mut self, permission: &Permission, tokens: bool) -> Rule {
        let action = match Action::from_word(&permission.action) {
            Some(action) => action,
            None => {
                self.complain("a permission without action");
                return Rule {
                    action: Action::Deny,
                    condition: Condition::Always,
                };
            }
        };
        // Against the caller, whatever the action.
        let unjudged = match action {
            Action::Allow => Condition::Never,
            Action::Deny => Condition::Always,
        };
        let needs_token = permission.jwt.is_some();
        if needs_token {
            self.complain("tokens (JWT) in permissions are not supported");
        }
        let is_allow = action == Action::Allow;
        let condition = if is_allow && (needs_token || tokens) {
            Condition::Never
        } else {
            match condition(permission.http.as_ref()) {
                Ok(condition) => condition,
                Err(what) => {
                    self.complain(&what);
                    unjudged
                }
            }
        };
        Rule { action, condition }
    }
}

fn condition(http: Option<&HttpPermission>) -> Result<Condition, String> {
    let Some(http) = http else {
        return Ok(Condition::Always);
    };
    let given = [&http.path_exact, &http.path_prefix, &http.path_regex];
    if given.iter().filter(|text| !text.is_empty()).count() > 1 {
        return Err("a permission with more than one condition on the path".to_owned());
    }
    let path = if !http.path_exact.is_empty() {
        PathRule::Exact(http.path_exact.clone())
    } else if !http.path_prefix.is_empty() {
        PathRule::Prefix(http.path_prefix.clone())
    } else if !http.path_regex.is_empty() {
        PathRule::Regex(whole(&http.path_regex, false)?)
    } else {
        PathRule::Any
    };
    let methods = http.methods.iter().map(|method| {
        Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| format!("'{method}' is not a method"))
    });
    let headers = http.header.iter().map(HeaderRule::compile);
    Ok(Condition::Request {
        path,
        methods: methods.collect::<Result<_, _>>()?,
        headers: headers.collect::<Result<_, _>>()?,
    })
}

/// An expression that must cover the whole text.
pub(super) fn whole(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_BYTES_MAX)
        .case_insensitive(ignore_case)
        .build()
        .map_err(|_| format!("the expression '{pattern}' cannot be used"))
}

impl PathRule {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(wanted) => path == wanted,
            Self::Prefix(wanted) => path.starts_with(wanted.as_str()),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderRule {
    fn compile(header: &HeaderPermission) -> Result<Self, String> {
        let name = http::HeaderName::try_from(header.name.as_str())
            .map_err(|_| format!("'{}' is not the name of a header", header.name))?;
        let fold = |text: &String| match header.ignore_case {
            true => text.to_lowercase(),
            false => text.clone(),
        };
        let mut rules = Vec::new();
        if header.present {
            rules.push(ValueRule::Present);
        }
        if !header.exact.is_empty() {
            rules.push(ValueRule::Exact(fold(&header.exact)));
        }
        if !header.prefix.is_empty() {
            rules.push(ValueRule::Prefix(fold(&header.prefix)));
        }
        if !header.suffix.is_empty() {
            rules.push(ValueRule::Suffix(fold(&header.suffix)));
        }
        if !header.contains.is_empty() {
            rules.push(ValueRule::Contains(fold(&header.contains)));
        }
        if !header.regex.is_empty() {
            rules.push(ValueRule::Regex(whole(&header.regex, header.ignore_case)?));
        }
        let mut rules = rules.into_iter();
        match (rules.next(), rules.next()) {
            (Some(value), None) => Ok(Self {
                name,
                invert: header.invert,
                ignore_case: header.ignore_case,
                value,
            }),
            _ => Err(format!(
                "header '{}' needs one of Present, Exact, Prefix, Suffix, Contains and Regex",
                header.name
            )),
        }
    }

    /// Several lines of one name count as one, joined by commas. A header that is not there meets no condition on its
    /// value, inverted or not: so does Envoy, for which Consul writes these rules.
    fn holds(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(&self.name).into_iter();
        let Some(first) = lines.next() else {
            return matches!(self.value, ValueRule::Present) && self.invert;
        };
        let mut value = String::from_utf8_lossy(first.as_bytes());
        for line in lines {
            let joined = value.to_mut();
            joined.push(',');
            joined.push_str(&String::from_utf8_lossy(line.as_bytes()));
        }
        if self.ignore_case {
            value = value.to_lowercase().into();
        }
        let held = match &self.value {
            ValueRule::Present => true,
            ValueRule::Exact(wanted) => *value == *wanted,
            ValueRule::Prefix(wanted) => value.starts_with(wanted.as_str()),
            ValueRule::Suffix(wanted) => value.ends_with(wanted.as_str()),
            ValueRule::Contains(wanted) => value.contains(wanted.as_str()),
            ValueRule::Regex(regex) => regex.is_match(&value),
        };
        held != self.invert
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn decide(permissions: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let permissions: Vec<Permission> = serde_json::from_str(permissions).unwrap();
        let list = PermissionList::compile(&permissions, false);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                http::HeaderName::try_from(*name).unwrap(),
                value.parse().unwrap(),
            );
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match list.decide(&method, path, &map) {
            Some(Action::Allow) => "allow".to_owned(),
            Some(Action::Deny) => "deny".to_owned(),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn the_first_permission_that_matches_decides() {
        let permissions = r#"[
            {"Action":"deny","HTTP":{"PathExact":"/v1/secret"}},
            {"Action":"allow","HTTP":{"PathPrefix":"/v1/","Methods":["GET","PUT"]}},
            {"Action":"allow","HTTP":{"PathRegex":"/x/[0-9]+"}}]"#;
        for (method, path, expected) in [
            ("GET", "/v1/secret", "deny"),
            ("GET", "/v1/other", "allow"),
            ("POST", "/v1/other", "none"),
            ("GET", "/v1", "none"),
            ("POST", "/x/12", "allow"),
            ("POST", "/x/12/y", "none"),
            ("POST", "/y/x/12", "none"),
        ] {
            assert_eq!(decide(permissions, method, path, &[]), expected, "{path}");
        }
    }

    #[test]
    fn headers_are_all_demanded() {
        for (header, value, expected) in [
            (r#"{"Name":"x-a","Present":true}"#, Some("1"), "allow"),
            (r#"{"Name":"x-a","Present":true}"#, None, "none"),
            (
                r#"{"Name":"x-a","Present":true,"Invert":true}"#,
                None,
                "allow",
            ),
            (r#"{"Name":"X-A","Exact":"one"}"#, Some("one"), "allow"),
            (r#"{"Name":"x-a","Exact":"one"}"#, Some("ONE"), "none"),
            (
                r#"{"Name":"x-a","Exact":"One","IgnoreCase":true}"#,
                Some("oNE"),
                "allow",
            ),
            (r#"{"Name":"x-a","Prefix":"on"}"#, Some("one"), "allow"),
            (r#"{"Name":"x-a","Suffix":"ne"}"#, Some("one"), "allow"),
            (r#"{"Name":"x-a","Contains":"n"}"#, Some("one"), "allow"),
            (r#"{"Name":"x-a","Regex":"o.e"}"#, Some("one"), "allow"),
            (r#"{"Name":"x-a","Regex":"n"}"#, Some("one"), "none"),
            (
                r#"{"Name":"x-a","Exact":"two","Invert":true}"#,
                Some("one"),
                "allow",
            ),
            (
                r#"{"Name":"x-a","Exact":"two","Invert":true}"#,
                None,
                "none",
            ),
            (r#"{"Name":"x-a"}"#, Some("one"), "none"),
            (r#"{"Name":"x a","Present":true}"#, Some("one"), "none"),
        ] {
            let permissions = format!(r#"[{{"Action":"allow","HTTP":{{"Header":[{header}]}}}}]"#);
            let headers: Vec<_> = value.map(|value| ("x-a", value)).into_iter().collect();
            assert_eq!(
                decide(&permissions, "GET", "/", &headers),
                expected,
                "{header}"
            );
        }
        let both = r#"[{"Action":"allow","HTTP":{"Header":[{"Name":"a","Present":true},{"Name":"b","Present":true}]}}]"#;
        assert_eq!(decide(both, "GET", "/", &[("a", "1")]), "none");
        assert_eq!(decide(both, "GET", "/", &[("a", "1"), ("b", "1")]), "allow");
    }

    #[test]
    fn what_cannot_be_judged_counts_against_the_caller() {
        for (permission, expected) in [
            (r#"{"Action":"allow","HTTP":{"PathRegex":"("}}"#, "none"),
            (r#"{"Action":"deny","HTTP":{"PathRegex":"("}}"#, "deny"),
            (
                r#"{"Action":"allow","JWT":{"Providers":[{"Name":"okta"}]}}"#,
                "none",
            ),
            (r#"{"Action":"perhaps"}"#, "deny"),
            (
                r#"{"Action":"allow","HTTP":{"PathExact":"/","PathPrefix":"/"}}"#,
                "none",
            ),
            (r#"{"Action":"allow"}"#, "allow"),
        ] {
            let decided = decide(&format!("[{permission}]"), "GET", "/", &[]);
            assert_eq!(decided, expected, "{permission}");
        }
    }
}
