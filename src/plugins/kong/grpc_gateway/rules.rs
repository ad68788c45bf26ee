//! Which requests lead to which methods: the HTTP rules of a compiled file (google.api.http), checked and in order.

use std::borrow::Cow;
use std::sync::Arc;

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value};

use super::fields::FieldPath;
use super::template::Template;
use crate::plugins::shared::proto_files;

/// Most rules of one file, the additional ones included.
const RULES_MAX: usize = 4096;
/// The fields of a rule that name a method of HTTP, as the rule spells them.
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// A method of a service, as it is called.
pub(super) struct Method {
    /// `/package.Service/Method`.
    pub(super) path: Box<[u8]>,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// Does it take any number of messages?
    pub(super) takes_many: bool,
    /// Does it answer with any number of messages?
    pub(super) gives_many: bool,
}

/// What of the request's message stands in the body.
#[derive(Clone)]
pub(super) enum BodyRule {
    /// Nothing: what the path does not say the query does.
    None,
    Whole,
    Field(FieldDescriptor),
}

/// One way to call a method.
pub(super) struct Binding {
    pub(super) method: Arc<Method>,
    /// In capitals; `None` takes any.
    http_method: Option<String>,
    template: Template,
    /// What the template's variables fill, in their order.
    pub(super) variables: Vec<FieldPath>,
    pub(super) body: BodyRule,
    /// The field of the answer that is shown instead of the whole.
    pub(super) answer: Option<FieldDescriptor>,
}

/// All ways, in the order in which they are tried.
pub(super) struct Rules(Vec<Arc<Binding>>);

impl Rules {
    /// Reads and checks the file. The error names file and line.
    pub(super) fn load(path: &str) -> Result<Self, String> {
        let compiled = proto_files::compile(path)?;
        let Some(extension) = compiled.pool.get_extension_by_name("google.api.http") else {
            return Err(none(path));
        };
        let mut bindings = Vec::new();
        // The file's own services come before those that it imports.
        let mut services: Vec<_> = compiled.pool.services().collect();
        services.sort_by_key(|service| service.parent_file().name() != compiled.name);
        for method in services.iter().flat_map(|service| service.methods()) {
            let options = method.options();
            if !options.has_extension(&extension) {
                continue;
            }
            let value = options.get_extension(&extension);
            let Some(rule) = value.as_message() else {
                continue;
            };
            let complain = |reason: String| {
                let place = compiled.place(&method.parent_file(), method.path());
                format!("{place}: rule of method '{}': {reason}", method.full_name())
            };
            bind(&method, rule, &mut bindings).map_err(complain)?;
            if bindings.len() > RULES_MAX {
                return Err(complain(format!("there are more than {RULES_MAX} rules")));
            }
        }
        if bindings.is_empty() {
            return Err(none(path));
        }
        // Templates without a verb match paths that end in one as well.
        bindings.sort_by_key(|binding| !binding.template.has_verb());
        Ok(Self(bindings))
    }

    /// The first way that fits, with the values of its variables.
    pub(super) fn find<'a>(
        &self,
        http_method: &str,
        path: &'a str,
    ) -> Option<(&Arc<Binding>, Vec<Cow<'a, str>>)> {
        self.0
            .iter()
            .filter(|binding| {
                let wanted = binding.http_method.as_deref();
                wanted.is_none_or(|wanted| wanted == http_method)
            })
            .find_map(|binding| Some((binding, binding.template.matches(path)?)))
    }

    /// Is there any way for requests with this method of HTTP?
    pub(super) fn knows(&self, http_method: &str) -> bool {
        self.0.iter().any(|binding| {
            let wanted = binding.http_method.as_deref();
            wanted.is_none_or(|wanted| wanted == http_method)
        })
    }
}

fn none(path: &str) -> String {
    format!("{path}: no method has a rule, 'option (google.api.http)'")
}

/// The ways that a rule and its additional ones describe.
fn bind(
    method: &MethodDescriptor,
    rule: &DynamicMessage,
    into: &mut Vec<Arc<Binding>>,
) -> Result<(), String> {
    let service = method.parent_service();
    let called = Arc::new(Method {
        path: format!("/{}/{}", service.full_name(), method.name())
            .into_bytes()
            .into_boxed_slice(),
        input: method.input(),
        output: method.output(),
        takes_many: method.is_client_streaming(),
        gives_many: method.is_server_streaming(),
    });
    into.push(Arc::new(binding(&called, rule)?));
    let further = rule.get_field_by_name("additional_bindings");
    let further = further.as_deref().and_then(Value::as_list);
    for rule in further.unwrap_or_default() {
        let Some(rule) = rule.as_message() else {
            continue;
        };
        if rule.has_field_by_name("additional_bindings") {
            return Err("an additional rule has additional rules".to_owned());
        }
        into.push(Arc::new(binding(&called, rule)?));
    }
    Ok(())
}

fn binding(method: &Arc<Method>, rule: &DynamicMessage) -> Result<Binding, String> {
    let (http_method, path) = pattern(rule)?;
    let template = Template::parse(&path).map_err(|reason| format!("path '{path}': {reason}"))?;
    let variables = template
        .fields()
        .map(|field| {
            let found = FieldPath::resolve(&method.input, field)?;
            match found.is_list() {
                true => Err(format!("'{field}' in the path is a list")),
                false => Ok(found),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let input = &method.input;
    let body = match &*text(rule, "body") {
        "" => BodyRule::None,
        "*" => BodyRule::Whole,
        name => BodyRule::Field(field_of(input, name, "body")?),
    };
    if method.takes_many && !matches!(body, BodyRule::Whole) {
        return Err("the method takes a stream of messages, so its 'body' must be '*'".to_owned());
    }
    let answer = match &*text(rule, "response_body") {
        "" => None,
        name => Some(field_of(&method.output, name, "response_body")?),
    };
    Ok(Binding {
        method: Arc::clone(method),
        http_method,
        template,
        variables,
        body,
        answer,
    })
}

fn field_of(message: &MessageDescriptor, name: &str, of: &str) -> Result<FieldDescriptor, String> {
    message.get_field_by_name(name).ok_or_else(|| {
        let message = message.full_name();
        format!("{of}: '{name}' is no field of message '{message}'")
    })
}

/// The method of HTTP, if one is demanded, and the path.
fn pattern(rule: &DynamicMessage) -> Result<(Option<String>, String), String> {
    if let Some(name) = METHODS.iter().find(|name| rule.has_field_by_name(name)) {
        return Ok((Some(name.to_ascii_uppercase()), text(rule, name)));
    }
    let custom = rule.get_field_by_name("custom");
    let custom = custom.as_deref().and_then(Value::as_message);
    let Some(custom) = custom.filter(|_| rule.has_field_by_name("custom")) else {
        return Err(
            "it names no method of HTTP: one of get, put, post, delete, patch, custom".to_owned(),
        );
    };
    let kind = text(custom, "kind");
    let http_method = match &*kind {
        "*" => None,
        "OPTIONS" => return Err("custom: OPTIONS is answered by the gateway".to_owned()),
        kind if !kind.is_empty() && kind.bytes().all(|it| it.is_ascii_uppercase()) => {
            Some(kind.to_owned())
        }
        kind => {
            return Err(format!(
                "custom: '{kind}' is no method of HTTP in capitals, or '*'"
            ));
        }
    };
    Ok((http_method, text(custom, "path")))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests"
    )]

    use super::*;

    /// The rules of a service with these methods, and the folder that must live as long as the file's path counts.
    pub(in crate::plugins::kong::grpc_gateway) fn rules(methods: &str) -> Result<Rules, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.proto");
        std::fs::write(&path, format!("{MESSAGES}service S {{\n{methods}\n}}\n")).unwrap();
        let shown = format!("{}/", folder.path().display());
        Rules::load(path.to_str().unwrap()).map_err(|error| error.replace(&shown, ""))
    }

    /// Fifteen lines, so that the first method stands in line 17.
    const MESSAGES: &str = "syntax = \"proto3\"; package t;\n\
        import \"google/api/annotations.proto\";\n\
        import \"google/protobuf/timestamp.proto\";\n\
        import \"google/protobuf/wrappers.proto\";\n\
        import \"google/protobuf/field_mask.proto\";\n\
        enum Kind { NONE = 0; BOOK = 1; }\n\
        message Deep { string text = 1; Deep deeper = 2; repeated int32 numbers = 3; }\n\
        message Item {\n\
          string name = 1; int32 small = 2; int64 big = 3; uint64 count = 4; bool yes = 5; double ratio = 6;\n\
          bytes data = 7; Kind kind = 8; Deep deep = 9; repeated string tags = 10; map<string, int32> scores = 11;\n\
          google.protobuf.Timestamp at = 12; google.protobuf.Int64Value maybe = 13; string long_name = 14;\n\
          oneof choice { string left = 15; int32 right = 16; } repeated Kind kinds = 17;\n\
          google.protobuf.FieldMask mask = 18; float part = 19; optional int32 extra = 20;\n\
        }\n\
        message Empty {}\n";

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules = rules(concat!(
            "rpc Get(Item) returns (Item) { option (google.api.http) = { get: \"/v1/{name=items/*}\" }; }\n",
            "rpc Print(Item) returns (Item) { option (google.api.http) = { get: \"/v1/{name=items/*}:print\"\n",
            "  additional_bindings { custom: { kind: \"PRINT\" path: \"/p/{name}\" } body: \"deep\" }\n",
            "  additional_bindings { custom: { kind: \"*\" path: \"/any\" } } }; }\n",
            "rpc None(Item) returns (Item);\n",
            "rpc Last(Item) returns (stream Item) { option (google.api.http) = { get: \"/v1/{name=**}\" }; }\n",
        ))
        .unwrap();
        let find = |method: &str, path: &'static str| {
            let (binding, values) = rules.find(method, path)?;
            let path = String::from_utf8(binding.method.path.to_vec()).unwrap();
            Some(format!("{path} {}", values.join(" ")))
        };
        for (method, path, expected) in [
            ("GET", "/v1/items/7", Some("/t.S/Get items/7")),
            ("GET", "/v1/items/7:print", Some("/t.S/Print items/7")),
            ("PRINT", "/p/7", Some("/t.S/Print 7")),
            ("GET", "/p/7", None),
            ("BREW", "/any", Some("/t.S/Print ")),
            ("GET", "/v1/items/7/8", Some("/t.S/Last items/7/8")),
            ("POST", "/v1/items/7", None),
        ] {
            assert_eq!(find(method, path).as_deref(), expected, "{method} {path}");
        }
        assert!(rules.knows("DELETE"), "any method leads to /any");
    }

    #[test]
    fn broken_rules_are_refused_with_their_place() {
        for (rule, expected) in [
            ("get: \"v1\"", "path 'v1': must start with '/'"),
            (
                "get: \"/{nobody}\"",
                "'nobody' is no field of message 't.Item'",
            ),
            (
                "get: \"/{deep}\"",
                "'deep' is a message: name one of its fields",
            ),
            ("get: \"/{name.x}\"", "'name' of 'name.x' is no message"),
            ("get: \"/{tags}\"", "'tags' in the path is a list"),
            (
                "get: \"/{scores}\"",
                "'scores' is a map, which only a body can hold",
            ),
            (
                "post: \"/x\" body: \"nobody\"",
                "body: 'nobody' is no field of message 't.Item'",
            ),
            (
                "get: \"/x\" response_body: \"y\"",
                "response_body: 'y' is no field of message 't.Item'",
            ),
            (
                "body: \"*\"",
                "it names no method of HTTP: one of get, put, post, delete, patch, custom",
            ),
            (
                "custom: { kind: \"get\" path: \"/x\" }",
                "custom: 'get' is no method of HTTP in capitals, or '*'",
            ),
            (
                "custom: { kind: \"OPTIONS\" path: \"/x\" }",
                "custom: OPTIONS is answered by the gateway",
            ),
            (
                "get: \"/x\" additional_bindings { get: \"/y\" additional_bindings { get: \"/z\" } }",
                "an additional rule has additional rules",
            ),
        ] {
            let method = format!(
                "rpc M(Item) returns (Item) {{ option (google.api.http) = {{ {rule} }}; }}"
            );
            let complaint = rules(&method).err().unwrap();
            assert_eq!(
                complaint,
                format!("t.proto:17: rule of method 't.S.M': {expected}")
            );
        }
        let stream =
            "rpc M(stream Item) returns (Item) { option (google.api.http) = { get: \"/x\" }; }";
        assert!(
            rules(stream)
                .err()
                .unwrap()
                .contains("its 'body' must be '*'")
        );
        let complaint = rules("rpc M(Item) returns (Item);").err().unwrap();
        assert_eq!(
            complaint,
            "t.proto: no method has a rule, 'option (google.api.http)'"
        );
        let unknown =
            "rpc M(Item) returns (Item) { option (google.api.http) = { fetch: \"/x\" }; }";
        assert!(rules(unknown).err().unwrap().starts_with("t.proto:17:"));
    }
}
