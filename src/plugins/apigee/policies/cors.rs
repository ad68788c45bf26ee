//! `CORS`: lets pages of other origins read responses, and answers their preflight requests.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};

use super::{Policy, PolicyLink};
use crate::dialects::apigee::message::{Message, fields};
use crate::dialects::apigee::policies::cors::Config;
use crate::dialects::apigee::template::{RenderError, Template, Unresolved};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};

const CODES: &str = "steps.cors";

struct Cors {
    name: Box<str>,
    origins: Template,
    methods: Template,
    headers: Option<Template>,
    exposed: Option<Template>,
    max_age: Template,
    allows_credentials: bool,
    answers_preflight: bool,
    unresolved: Unresolved,
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(Cors::build(link.name, &link.config()?)?))
}

/// What an origin is answered.
enum Verdict {
    Any,
    Named(HeaderValue),
    Refused,
}

impl Cors {
    fn build(name: &str, config: &Config) -> Result<Self, String> {
        let template = |text: &str| Template::parse(text).map_err(|error| error.to_string());
        Ok(Self {
            name: name.into(),
            origins: template(&config.origins)?,
            methods: template(&config.methods)?,
            headers: config.headers.as_deref().map(template).transpose()?,
            exposed: config.exposed.as_deref().map(template).transpose()?,
            max_age: template(&config.max_age)?,
            allows_credentials: config.allows_credentials,
            answers_preflight: config.answers_preflight,
            unresolved: if config.ignore_unresolved {
                Unresolved::Empty
            } else {
                Unresolved::Fails
            },
        })
    }

    fn run(&self, scope: &mut Scope) -> Result<Next, PolicyFault> {
        let Some(request) = scope.message(REQUEST) else {
            return Ok(Next::Continue);
        };
        let Some(origin) = request.headers.get(ORIGIN).cloned() else {
            return Ok(Next::Continue);
        };
        let is_preflight = request.verb == "OPTIONS"
            && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight && !self.answers_preflight {
            return Ok(Next::Continue);
        }
        let mut answer = Vec::new();
        match self.verdict(&origin, scope)? {
            Verdict::Refused if !is_preflight => return Ok(Next::Continue),
            Verdict::Refused => {}
            Verdict::Any => {
                answer.push((ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")));
                self.fields(is_preflight, scope, &mut answer)?;
            }
            Verdict::Named(origin) => {
                answer.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin));
                answer.push((VARY, HeaderValue::from_static("Origin")));
                if self.allows_credentials {
                    answer.push((
                        ACCESS_CONTROL_ALLOW_CREDENTIALS,
                        HeaderValue::from_static("true"),
                    ));
                }
                self.fields(is_preflight, scope, &mut answer)?;
            }
        }
        if !is_preflight {
            scope.answer_fields.extend(answer);
            return Ok(Next::Continue);
        }
        let mut response = Message::response();
        for (name, value) in answer {
            response.headers.insert(name, value);
        }
        scope
            .put_message("response", response)
            .map_err(|error| PolicyFault::of_write(CODES, &error))?;
        Ok(Next::Answer)
    }

    fn verdict(&self, origin: &HeaderValue, scope: &Scope) -> Result<Verdict, PolicyFault> {
        let allowed = self.render(&self.origins, scope)?;
        let shown = fields::text(origin);
        let mut verdict = Verdict::Refused;
        for known in allowed.split(',').map(str::trim) {
            if known == "*" {
                return Ok(Verdict::Any);
            }
            if !known.is_empty() && known.eq_ignore_ascii_case(&shown) {
                verdict = Verdict::Named(origin.clone());
            }
        }
        Ok(verdict)
    }

    fn fields(
        &self,
        is_preflight: bool,
        scope: &Scope,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(), PolicyFault> {
        let preflight = [
            (ACCESS_CONTROL_ALLOW_METHODS, Some(&self.methods)),
            (ACCESS_CONTROL_ALLOW_HEADERS, self.headers.as_ref()),
            (ACCESS_CONTROL_MAX_AGE, Some(&self.max_age)),
        ];
        let other = [(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.as_ref())];
        let list: &[(HeaderName, Option<&Template>)] =
            if is_preflight { &preflight } else { &other };
        for (name, template) in list {
            let Some(template) = template else {
                continue;
            };
            let text = self.render(template, scope)?;
            // What no header can hold, a variable gave; nothing is better than something else.
            into.extend(
                fields::value_of(&text)
                    .filter(|_| !text.is_empty())
                    .map(|value| (name.clone(), value)),
            );
        }
        Ok(())
    }

    fn render(&self, template: &Template, scope: &Scope) -> Result<String, PolicyFault> {
        let text = template
            .render(scope, self.unresolved)
            .map(|text| text.into_owned());
        text.map_err(|error| {
            let name = if matches!(error, RenderError::Unresolved(_)) {
                "UnresolvedVariable"
            } else {
                "ExecutionFailed"
            };
            PolicyFault::new(
                500,
                format!("{CODES}.{name}"),
                format!("CORS[{}]: {error}", self.name),
            )
        })
    }
}

impl Policy for Cors {
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

    fn run(body: &str, verb: &'static str, headers: &[(&str, &str)]) -> (Scope, Next) {
        let mut request = Message::request();
        request.verb = verb.into();
        for (name, value) in headers {
            request.add_header(name, value).unwrap();
        }
        let mut scope = scope_of(request);
        let policy = Cors::build("c", &config(&format!("<CORS name='c'>{body}</CORS>"))).unwrap();
        let next = policy.run(&mut scope).unwrap();
        (scope, next)
    }

    const PREFLIGHT: &[(&str, &str)] = &[
        ("Origin", "https://a.test"),
        ("Access-Control-Request-Method", "PUT"),
    ];

    #[test]
    fn answers_preflight_requests() {
        let (scope, next) = run(
            "<AllowOrigins>https://b.test, https://a.test</AllowOrigins><AllowMethods>GET, PUT</AllowMethods><AllowHeaders>x-a</AllowHeaders><MaxAge>60</MaxAge><AllowCredentials>true</AllowCredentials>",
            "OPTIONS",
            PREFLIGHT,
        );
        assert_eq!(next, Next::Answer);
        for (name, expected) in [
            ("status.code", Some("200")),
            ("header.access-control-allow-origin", Some("https://a.test")),
            (
                "header.access-control-allow-methods.values.string",
                Some("GET, PUT"),
            ),
            ("header.access-control-allow-headers", Some("x-a")),
            ("header.access-control-max-age", Some("60")),
            ("header.access-control-allow-credentials", Some("true")),
            ("header.vary", Some("Origin")),
        ] {
            assert_eq!(
                text(&scope, &format!("response.{name}")).as_deref(),
                expected,
                "{name}"
            );
        }
        let (scope, next) = run(
            "<AllowOrigins>https://b.test</AllowOrigins>",
            "OPTIONS",
            PREFLIGHT,
        );
        assert_eq!(
            (
                next,
                text(&scope, "response.header.access-control-allow-origin")
            ),
            (Next::Answer, None)
        );
        let (_, next) = run(
            "<AllowOrigins>*</AllowOrigins><GeneratePreflightResponse>false</GeneratePreflightResponse>",
            "OPTIONS",
            PREFLIGHT,
        );
        assert_eq!(next, Next::Continue);
    }

    #[test]
    fn marks_other_responses() {
        let origin: &[(&str, &str)] = &[("Origin", "https://a.test")];
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Headers<'_>, &[&str]); 4] = [
            (
                "<AllowOrigins>*</AllowOrigins><ExposeHeaders>x-b</ExposeHeaders>",
                origin,
                &[
                    "access-control-allow-origin: *",
                    "access-control-expose-headers: x-b",
                ],
            ),
            (
                "<AllowOrigins>{request.header.origin}</AllowOrigins>",
                origin,
                &[
                    "access-control-allow-origin: https://a.test",
                    "vary: Origin",
                ],
            ),
            ("<AllowOrigins>{nothing}</AllowOrigins>", origin, &[]),
            ("<AllowOrigins>*</AllowOrigins>", &[], &[]),
        ];
        for (body, headers, expected) in cases {
            let (scope, next) = run(body, "GET", headers);
            assert_eq!(next, Next::Continue);
            let fields: Vec<_> = scope
                .answer_fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            assert_eq!(fields, expected, "{body}");
        }
    }
}
