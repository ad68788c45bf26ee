//! `ExtractVariables`: parts of a message, or of other variables, into variables.

use bytes::Bytes;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::json_path::{JsonPath, JsonPathError, result_text};
use crate::dialects::apigee::message::{Message, Part, Property};
use crate::dialects::apigee::policies::extract_variables::{
    Config, TextFrom, TextSource, VariableType,
};
use crate::dialects::apigee::template::{Template, Unresolved};
use crate::dialects::apigee::text_pattern::TextPattern;
use crate::dialects::apigee::variables::{Value, VariableName};
use crate::dialects::apigee::xml::{Document, Limits};
use crate::dialects::apigee::xpath::{Outcome, XPath};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::Scope;

const CODES: &str = "steps.extractvariables";

struct ExtractVariables {
    name: Box<str>,
    source: VariableName,
    clear_payload: bool,
    ignore_unresolved: bool,
    prefix: Option<String>,
    texts: Vec<Texts>,
    json: Vec<(VariableName, VariableType, Path)>,
    xml: Vec<(VariableName, VariableType, XPath)>,
    xml_stops: bool,
}

struct Texts {
    from: From,
    all: bool,
    patterns: Vec<(TextPattern, bool)>,
}

enum From {
    UriPath,
    Property(Property),
    /// A header's whole value.
    Header(Property),
    Variable(VariableName),
}

/// A JSONPath, which may hold variables.
enum Path {
    Fixed(JsonPath),
    Template(Template),
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(ExtractVariables::build(
        link.name,
        link.config()?,
    )?))
}

impl ExtractVariables {
    fn build(name: &str, config: Config) -> Result<Self, String> {
        let prefix = config.prefix.clone();
        let variable = |name: &str| match &prefix {
            Some(prefix) => VariableName::new(&format!("{prefix}.{name}")),
            None => VariableName::new(name),
        };
        let texts = config
            .texts
            .iter()
            .map(Texts::link)
            .collect::<Result<_, _>>()?;
        let json = config.json.iter().map(|json| {
            let template = Template::parse(&json.path).map_err(|error| error.to_string())?;
            let path = match template.fixed() {
                Some(path) => Path::Fixed(JsonPath::parse(path)?),
                None => Path::Template(template),
            };
            Ok((variable(&json.name), json.kind, path))
        });
        let json = json.collect::<Result<_, String>>()?;
        let xml_source = config.xml.unwrap_or_default();
        let xml = xml_source.variables.iter().map(|xml| {
            Ok((
                variable(&xml.name),
                xml.kind,
                XPath::parse(&xml.expression, &xml_source.namespaces)?,
            ))
        });
        let xml = xml.collect::<Result<_, String>>()?;
        Ok(Self {
            name: name.into(),
            source: VariableName::new(&config.source),
            clear_payload: config.clear_payload,
            ignore_unresolved: config.ignore_unresolved,
            prefix,
            texts,
            json,
            xml,
            xml_stops: xml_source.stops,
        })
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let source = scope.handle(self.source.as_str());
        let is_text = source.is_none() && scope.owned(&self.source).is_some();
        let needs_source = !self.json.is_empty()
            || !self.xml.is_empty()
            || self
                .texts
                .iter()
                .any(|texts| !matches!(texts.from, From::Variable(_)));
        if needs_source && source.is_none() && !is_text {
            if self.ignore_unresolved {
                return Ok(Next::Continue);
            }
            let message = format!(
                "{} message is not available for ExtractVariable: {}",
                self.source, self.name
            );
            return Err(fault("SourceMessageNotAvailable", message));
        }
        let mut found: Vec<(VariableName, Value<'static>)> = Vec::new();
        let message = source.and_then(|handle| scope.message(handle));
        for texts in &self.texts {
            self.texts(texts, scope, message, &mut found)?;
        }
        if !self.json.is_empty() || !self.xml.is_empty() {
            let content = match message {
                Some(message) => message.text().into_owned(),
                None => scope.text(&self.source).unwrap_or_default().into_owned(),
            };
            self.json(&content, scope, &mut found)?;
            if message.is_none_or(is_xml) {
                self.xml(&content, &mut found)?;
            }
        }
        for (name, value) in found {
            let shown = value.as_text().chars().take(100).collect::<String>();
            scope.set(&name, value).map_err(|_| {
                let message = format!(
                    "Failed to set variable {name} value {shown} from ExtractVariables: {}",
                    self.name
                );
                fault("SetVariableFailed", message)
            })?;
        }
        if self.clear_payload
            && let Some(message) = source.and_then(|handle| scope.message_mut(handle))
        {
            message.replace_content(Bytes::new());
        }
        Ok(Next::Continue)
    }

    fn texts(
        &self,
        texts: &Texts,
        scope: &Scope,
        message: Option<&Message>,
        found: &mut Vec<(VariableName, Value<'static>)>,
    ) -> Result<(), PolicyFault> {
        let text = match &texts.from {
            // The part behind the base path, of the request as it came in.
            From::UriPath if message.is_none_or(Message::is_request) => {
                Some(scope.entry.suffix.clone())
            }
            From::UriPath => None,
            From::Property(property) | From::Header(property) => message
                .and_then(|message| message.read(property))
                .map(|value| value.into_text().into_owned()),
            From::Variable(name) => scope.text(name).map(|text| text.into_owned()),
        };
        let Some(text) = text else {
            return if self.ignore_unresolved {
                Ok(())
            } else {
                Err(self.failed())
            };
        };
        for (pattern, ignore_case) in &texts.patterns {
            let Some(captures) = pattern.captures(&text, *ignore_case) else {
                continue;
            };
            for (name, value) in captures {
                let name = match &self.prefix {
                    Some(prefix) => VariableName::new(&format!("{prefix}.{name}")),
                    None => VariableName::new(name),
                };
                found.push((name, Value::from(value.to_owned())));
            }
            if !texts.all {
                break;
            }
        }
        Ok(())
    }

    fn json(
        &self,
        content: &str,
        scope: &Scope,
        found: &mut Vec<(VariableName, Value<'static>)>,
    ) -> Result<(), PolicyFault> {
        if self.json.is_empty() {
            return Ok(());
        }
        let document: serde_json::Value = match serde_json::from_str(content) {
            Ok(document) => document,
            Err(_) if self.ignore_unresolved => return Ok(()),
            Err(_) => return Err(self.failed()),
        };
        for (name, kind, path) in &self.json {
            let rendered;
            let path = match path {
                Path::Fixed(path) => path,
                Path::Template(template) => {
                    let text = template
                        .render(scope, Unresolved::Empty)
                        .map_err(|_| self.failed())?;
                    rendered = JsonPath::parse(&text)
                        .map_err(|reason| fault("JsonPathParsingFailure", reason))?;
                    &rendered
                }
            };
            match path.read(&document) {
                Ok(serde_json::Value::Null) => {}
                Ok(value) => found.extend(
                    self.typed(*kind, result_text(&value))?
                        .map(|value| (name.clone(), value)),
                ),
                Err(JsonPathError::Missing(_)) if self.ignore_unresolved => {}
                Err(JsonPathError::Missing(path)) => {
                    let message = format!("Invalid JSON path {path} in policy {}.", self.name);
                    return Err(fault("InvalidJSONPath", message));
                }
                Err(error @ JsonPathError::Limit(_)) => {
                    return Err(fault("ExecutionFailed", error.to_string()));
                }
            }
        }
        Ok(())
    }

    fn xml(
        &self,
        content: &str,
        found: &mut Vec<(VariableName, Value<'static>)>,
    ) -> Result<(), PolicyFault> {
        if self.xml.is_empty() {
            return Ok(());
        }
        let document = match Document::parse("message", content, Limits::MESSAGE) {
            Ok(document) => document,
            Err(_) if self.ignore_unresolved => return Ok(()),
            Err(_) => return Err(self.failed()),
        };
        for (name, kind, xpath) in &self.xml {
            let outcome = xpath
                .evaluate(&document)
                .map_err(|limit| fault("ExecutionFailed", limit.to_string()))?;
            if outcome.is_nothing() {
                continue;
            }
            let value = match (*kind, &outcome) {
                (VariableType::Nodeset, outcome) => Some(Value::Nodes(outcome.xml().into())),
                (VariableType::Boolean, Outcome::Boolean(value)) => Some(Value::Boolean(*value)),
                (kind, outcome) => self.typed(kind, outcome.text().into_owned())?,
            };
            found.extend(value.map(|value| (name.clone(), value)));
            if self.xml_stops {
                break;
            }
        }
        Ok(())
    }

    /// A text in a variable's type.
    fn typed(
        &self,
        kind: VariableType,
        text: String,
    ) -> Result<Option<Value<'static>>, PolicyFault> {
        let trimmed = text.trim();
        let value = match kind {
            VariableType::String => return Ok(Some(Value::from(text))),
            VariableType::Nodeset => return Ok(Some(Value::Nodes(text.into()))),
            VariableType::Boolean => Value::from(trimmed).as_boolean().map(Value::Boolean),
            VariableType::Integer => trimmed.parse().ok().map(Value::Integer),
            VariableType::Long => trimmed.parse().ok().map(Value::Long),
            VariableType::Float => trimmed.parse().ok().map(Value::Float),
            VariableType::Double => trimmed.parse().ok().map(Value::Double),
        };
        match value {
            Some(value) => Ok(Some(value)),
            None if self.ignore_unresolved => Ok(None),
            None => {
                let shown: String = text.chars().take(100).collect();
                Err(fault(
                    "UnableToCast",
                    format!(
                        "Unable to cast value {shown} in ExtractVariables: {}",
                        self.name
                    ),
                ))
            }
        }
    }

    fn failed(&self) -> PolicyFault {
        fault(
            "ExecutionFailed",
            format!("Failed to execute the ExtractVariables: {}", self.name),
        )
    }
}

impl Texts {
    fn link(source: &TextSource) -> Result<Self, String> {
        let part = |name: &str| match name
            .rsplit_once('.')
            .and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
        {
            Some((name, number)) => (name, Part::Number(number)),
            None => (name.to_owned(), Part::First),
        };
        let from = match &source.from {
            TextFrom::UriPath => From::UriPath,
            TextFrom::QueryParameter(name) => {
                let (name, part) = part(name);
                From::Property(Property::QueryParameter(name.into(), part))
            }
            TextFrom::FormParameter(name) => {
                let (name, part) = part(name);
                From::Property(Property::FormParameter(name.into(), part))
            }
            TextFrom::Header(name) => {
                let (name, part) = part(name);
                let part = if part == Part::First {
                    Part::Joined
                } else {
                    part
                };
                From::Header(Property::header(&name, part))
            }
            TextFrom::Variable(name) => From::Variable(VariableName::new(name)),
        };
        let is_path = source.from == TextFrom::UriPath;
        let patterns = source.patterns.iter().map(|pattern| {
            Ok((
                TextPattern::parse(&pattern.text, is_path)?,
                pattern.ignore_case,
            ))
        });
        Ok(Self {
            from,
            all: source.all,
            patterns: patterns.collect::<Result<_, String>>()?,
        })
    }
}

/// XML is looked for in messages that say so.
fn is_xml(message: &Message) -> bool {
    message.media_type().is_some_and(|media| {
        let media = media.to_ascii_lowercase();
        media == "text/xml" || media == "application/xml" || media.ends_with("+xml")
    })
}

fn fault(name: &str, message: String) -> PolicyFault {
    PolicyFault::new(500, format!("{CODES}.{name}"), message)
}

impl Policy for ExtractVariables {
    fn execute(&self, flow: &mut FlowContext<'_>) -> Result<Next, PolicyFault> {
        self.run(flow.scope)
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
    use super::super::test_support::{config, scope_of, text};
    use super::*;

    fn request(kind: &str, body: &'static str) -> Scope {
        let mut request = Message::request();
        request.path = "/shop/items/4".to_owned();
        request.query = Some("w=hello%20one&w=hello%20two".to_owned());
        request.add_header("Authorization", "Bearer a, b").unwrap();
        request.add_header("Content-Type", kind).unwrap();
        request.content = body.into();
        scope_of(request)
    }

    fn run(body: &str, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let xml = format!("<ExtractVariables name='e'>{body}</ExtractVariables>");
        ExtractVariables::build("e", config(&xml))
            .unwrap()
            .run(scope)
    }

    #[test]
    fn extracts_texts() {
        let mut scope = request("application/x-www-form-urlencoded", "f=x-9");
        scope.set(&VariableName::new("v"), "a=b".into()).unwrap();
        run(
            "<VariablePrefix>p</VariablePrefix><URIPath><Pattern>/nothing/{id}</Pattern><Pattern>/items/{id}</Pattern></URIPath>\
             <QueryParam name='w'><Pattern>hello {one}</Pattern></QueryParam><QueryParam name='w.2'><Pattern ignoreCase='true'>HELLO {two}</Pattern></QueryParam>\
             <Header name='Authorization'><Pattern>Bearer {token}</Pattern></Header><FormParam name='f'><Pattern>x-{f}</Pattern></FormParam>\
             <Variable name='v'><Pattern>{left}={right}</Pattern></Variable>",
            &mut scope,
        )
        .unwrap();
        for (name, expected) in [
            ("p.id", "4"),
            ("p.one", "one"),
            ("p.two", "two"),
            ("p.token", "a, b"),
            ("p.f", "9"),
            ("p.left", "a"),
            ("p.right", "b"),
        ] {
            assert_eq!(text(&scope, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn extracts_json_and_xml() {
        let mut scope = request(
            "text/plain",
            r#"{"a":{"b":[1,"x"]},"n":"7","o":{"k":null},"t":true}"#,
        );
        scope.set(&VariableName::new("key"), "n".into()).unwrap();
        run(
            "<JSONPayload><Variable name='b'><JSONPath>$.a.b</JSONPath></Variable><Variable name='all'><JSONPath>$.a.b[*]</JSONPath></Variable>\
             <Variable name='n' type='integer'><JSONPath>$.{key}</JSONPath></Variable><Variable name='x'><JSONPath>$.a.b[1]</JSONPath></Variable>\
             <Variable name='null'><JSONPath>$.o.k</JSONPath></Variable><Variable name='t' type='boolean'><JSONPath>$.t</JSONPath></Variable></JSONPayload>",
            &mut scope,
        )
        .unwrap();
        for (name, expected) in [
            ("b", Some("[1,\"x\"]")),
            ("all", Some("[1,\"x\"]")),
            ("n", Some("7")),
            ("x", Some("x")),
            ("null", None),
            ("t", Some("true")),
        ] {
            assert_eq!(text(&scope, name).as_deref(), expected, "{name}");
        }
        let xml = "<XMLPayload><Namespaces><Namespace prefix='q'>urn:q</Namespace></Namespaces>\
             <Variable name='x' type='long'><XPath>/q:a/q:b</XPath></Variable><Variable name='set' type='nodeset'><XPath>//q:b</XPath></Variable>\
             <Variable name='no'><XPath>//c</XPath></Variable></XMLPayload>";
        let mut scope = request("application/soap+xml", "<a xmlns='urn:q'><b>5</b></a>");
        run(xml, &mut scope).unwrap();
        assert_eq!(text(&scope, "x").as_deref(), Some("5"));
        assert_eq!(
            text(&scope, "set").as_deref(),
            Some("<b xmlns=\"urn:q\">5</b>")
        );
        assert_eq!(text(&scope, "no"), None);
        let mut plain = request("text/plain", "<a xmlns='urn:q'><b>5</b></a>");
        run(xml, &mut plain).unwrap();
        assert_eq!(text(&plain, "x"), None, "the type gates XML");
    }

    #[test]
    fn fails_as_documented() {
        let cases = [
            (
                "<Source>nix</Source><URIPath><Pattern>/{a}</Pattern></URIPath>",
                "SourceMessageNotAvailable",
                "nix message is not available for ExtractVariable: e",
            ),
            (
                "<Header name='nix'><Pattern>{a}</Pattern></Header>",
                "ExecutionFailed",
                "Failed to execute the ExtractVariables: e",
            ),
            (
                "<JSONPayload><Variable name='a'><JSONPath>$.a</JSONPath></Variable></JSONPayload>",
                "ExecutionFailed",
                "Failed to execute",
            ),
            (
                "<XMLPayload><Variable name='a'><XPath>/a</XPath></Variable></XMLPayload>",
                "ExecutionFailed",
                "Failed to execute",
            ),
        ];
        for (body, name, part) in cases {
            let fault = run(body, &mut request("text/xml", "broken")).expect_err(body);
            assert_eq!((fault.status, fault.name.as_ref()), (500, name), "{body}");
            assert!(fault.message.contains(part), "{}", fault.message);
            let ignoring =
                format!("{body}<IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables>");
            assert!(
                run(&ignoring, &mut request("text/xml", "broken")).is_ok(),
                "{body}"
            );
        }
        let body = "<JSONPayload><Variable name='a' type='integer'><JSONPath>$.nix</JSONPath></Variable></JSONPayload>";
        let fault = run(body, &mut request("x/y", "{}")).expect_err(body);
        assert_eq!(
            (fault.name.as_ref(), fault.message.as_str()),
            ("InvalidJSONPath", "Invalid JSON path $.nix in policy e.")
        );
        let fault = run(body, &mut request("x/y", "{\"nix\":\"a\"}")).expect_err(body);
        assert_eq!(fault.name, "UnableToCast");
    }

    #[test]
    fn empties_the_source() {
        let mut scope = request("text/plain", "{\"a\":1}");
        run("<Source clearPayload='true'>request</Source><JSONPayload><Variable name='a'><JSONPath>$.a</JSONPath></Variable></JSONPayload>", &mut scope).unwrap();
        assert_eq!(text(&scope, "a").as_deref(), Some("1"));
        assert_eq!(text(&scope, "request.content").as_deref(), Some(""));
    }
}
