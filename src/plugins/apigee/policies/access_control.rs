//! `AccessControl`: allows or denies by the client's address.

use std::net::IpAddr;

use http::header::HeaderName;
use ipnet::IpNet;

use super::{Policy, PolicyLink};
use crate::dialects::apigee::message::fields;
use crate::dialects::apigee::policies::access_control::{BasedOn, Config};
use crate::dialects::apigee::template::{Template, Unresolved};
use crate::plugins::apigee::flow::context::{FlowContext, Next, PolicyFault};
use crate::plugins::apigee::flow::scope::{REQUEST, Scope};

const CODES: &str = "accesscontrol";
const TRUE_CLIENT_IP: HeaderName = HeaderName::from_static("true-client-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Addresses of one header that are looked at.
const ADDRESSES_MAX: usize = 100;

struct AccessControl {
    rules: Vec<Rule>,
    allows_others: bool,
    based_on: BasedOn,
    ignores_true_client_ip: bool,
}

struct Rule {
    allows: bool,
    sources: Vec<Source>,
}

enum Source {
    Fixed(Vec<IpNet>),
    Template {
        address: Template,
        mask: Option<Template>,
    },
}

pub(super) fn link(link: &PolicyLink<'_>) -> Result<Box<dyn Policy>, String> {
    Ok(Box::new(AccessControl::build(&link.config()?)?))
}

impl AccessControl {
    fn build(config: &Config) -> Result<Self, String> {
        let template = |text: &str| Template::parse(text).map_err(|error| error.to_string());
        let rules = config.rules.iter().map(|rule| {
            let sources = rule.sources.iter().map(|source| {
                let address = template(&source.address)?;
                let mask = source.mask.as_deref().map(template).transpose()?;
                match (address.fixed(), mask.as_ref().map(Template::fixed)) {
                    (Some(address), None) => nets(address, None).map(Source::Fixed),
                    (Some(address), Some(Some(mask))) => {
                        nets(address, Some(mask)).map(Source::Fixed)
                    }
                    _ => Ok(Source::Template { address, mask }),
                }
            });
            Ok(Rule {
                allows: rule.allows,
                sources: sources.collect::<Result<_, String>>()?,
            })
        });
        Ok(Self {
            rules: rules.collect::<Result<_, String>>()?,
            allows_others: config.allows_others,
            based_on: config.based_on,
            ignores_true_client_ip: config.ignores_true_client_ip,
        })
    }

    fn run(&self, scope: &Scope) -> Result<Next, PolicyFault> {
        for address in self.addresses(scope)? {
            if !self.allows(address, scope)? {
                let message = format!("Access Denied for client ip : {address}");
                return Err(PolicyFault::new(
                    403,
                    format!("{CODES}.IPDeniedAccess"),
                    message,
                ));
            }
        }
        Ok(Next::Continue)
    }

    /// The addresses that must be allowed.
    fn addresses(&self, scope: &Scope) -> Result<Vec<IpAddr>, PolicyFault> {
        let headers = scope.message(REQUEST).map(|request| &request.headers);
        let texts = |name: &HeaderName| -> Vec<String> {
            let values = headers
                .into_iter()
                .flat_map(|headers| fields::values(headers, name));
            values
                .take(ADDRESSES_MAX + 1)
                .map(|value| value.into_owned())
                .filter(|value| !value.is_empty())
                .collect()
        };
        let mut chosen = Vec::new();
        if !self.ignores_true_client_ip {
            chosen = texts(&TRUE_CLIENT_IP);
            chosen.truncate(1);
        }
        if chosen.is_empty() {
            chosen = texts(&FORWARDED_FOR);
            match self.based_on {
                BasedOn::First => chosen.truncate(1),
                BasedOn::Last => drop(chosen.drain(..chosen.len().saturating_sub(1))),
                // A list that is too long to look at is not passed over.
                BasedOn::All if chosen.len() > ADDRESSES_MAX => {
                    let message =
                        format!("X-Forwarded-For has more than {ADDRESSES_MAX} addresses");
                    return Err(PolicyFault::new(
                        500,
                        format!("{CODES}.ClientIpExtractionFailed"),
                        message,
                    ));
                }
                BasedOn::All => {}
            }
        }
        if chosen.is_empty() {
            return Ok(vec![scope.inbound.client_address]);
        }
        let parsed = chosen.iter().map(|text| {
            address_of(text).ok_or_else(|| {
                let shown: String = text.chars().take(60).collect();
                PolicyFault::new(
                    500,
                    format!("{CODES}.InvalidIPAddress"),
                    format!("Invalid ip address : {shown}"),
                )
            })
        });
        parsed.collect()
    }

    fn allows(&self, address: IpAddr, scope: &Scope) -> Result<bool, PolicyFault> {
        for rule in &self.rules {
            for source in &rule.sources {
                let rendered;
                let nets = match source {
                    Source::Fixed(nets) => nets,
                    Source::Template { address, mask } => {
                        let fill = |template: &Template| {
                            template
                                .render(scope, Unresolved::Empty)
                                .map(|text| text.into_owned())
                                .map_err(|error| error.to_string())
                        };
                        let made = fill(address).and_then(|address| {
                            let mask = mask.as_ref().map(fill).transpose()?;
                            nets(&address, mask.as_deref())
                        });
                        rendered = made.map_err(|reason| {
                            PolicyFault::new(
                                500,
                                format!("{CODES}.InvalidRulePattern"),
                                format!("Invalid rule pattern : {reason}"),
                            )
                        })?;
                        &rendered
                    }
                };
                if nets.iter().any(|net| net.contains(&address)) {
                    return Ok(rule.allows);
                }
            }
        }
        Ok(self.allows_others)
    }
}

/// An address, perhaps with a port; an IPv4 address within IPv6 is itself.
fn address_of(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let parsed = text.parse().or_else(|_| {
        text.parse::<std::net::SocketAddr>()
            .map(|address| address.ip())
    });
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

/// The blocks of a list of addresses.
fn nets(list: &str, mask: Option<&str>) -> Result<Vec<IpNet>, String> {
    let mask = mask.map(str::trim).filter(|mask| !mask.is_empty());
    let nets = list.split(',').map(|text| {
        let address =
            address_of(text).ok_or_else(|| format!("'{}' is not an address", text.trim()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match mask {
            None => most,
            Some(mask) => mask
                .parse()
                .map_err(|_| format!("'{mask}' is not a mask"))?,
        };
        IpNet::new(address, bits)
            .map(|net| net.trunc())
            .map_err(|_| format!("'{bits}' is not a mask from 0 to {most}"))
    });
    nets.collect()
}

impl Policy for AccessControl {
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
    use super::super::test_support::{config, scope};
    use super::*;
    use crate::dialects::apigee::variables::VariableName;

    fn run(body: &str, headers: &[(&str, &str)]) -> Result<Next, PolicyFault> {
        let mut scope = scope();
        for (name, value) in headers {
            scope
                .set(
                    &VariableName::new(&format!("request.header.{name}")),
                    (*value).into(),
                )
                .unwrap();
        }
        scope.set_own("net", "10.2.0.0".to_owned());
        AccessControl::build(&config(&format!(
            "<AccessControl name='a'>{body}</AccessControl>"
        )))
        .unwrap()
        .run(&scope)
    }

    #[test]
    fn decides_by_the_first_rule() {
        let rules = "<IPRules noRuleMatchAction='DENY'><MatchRule action='DENY'><SourceAddress mask='32'>10.1.1.5</SourceAddress></MatchRule>\
                     <MatchRule action='ALLOW'><SourceAddress mask='24'>10.1.1.0, 192.0.2.0</SourceAddress><SourceAddress mask='16'>{net}</SourceAddress><SourceAddress>2001:db8::1</SourceAddress></MatchRule></IPRules>";
        let all = format!("{rules}<ValidateBasedOn>X_FORWARDED_FOR_ALL_IP</ValidateBasedOn>");
        let last = format!("{rules}<ValidateBasedOn>X_FORWARDED_FOR_LAST_IP</ValidateBasedOn>");
        let ignoring = format!("{rules}<IgnoreTrueClientIPHeader>true</IgnoreTrueClientIPHeader>");
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(&str, Headers<'_>, bool); 12] = [
            (rules, &[("X-Forwarded-For", "10.1.1.9")], true),
            (rules, &[("X-Forwarded-For", "10.1.1.5")], false),
            (rules, &[("X-Forwarded-For", "192.0.2.77")], true),
            (rules, &[("X-Forwarded-For", "10.2.200.1")], true),
            (rules, &[("X-Forwarded-For", "2001:db8::1")], true),
            (rules, &[("X-Forwarded-For", "::ffff:10.1.1.9")], true),
            (rules, &[("X-Forwarded-For", "8.8.8.8")], false),
            (rules, &[("X-Forwarded-For", "10.1.1.9, 8.8.8.8")], true),
            (&all, &[("X-Forwarded-For", "10.1.1.9, 8.8.8.8")], false),
            (&last, &[("X-Forwarded-For", "8.8.8.8, 10.1.1.9")], true),
            (
                rules,
                &[
                    ("True-Client-IP", "8.8.8.8"),
                    ("X-Forwarded-For", "10.1.1.9"),
                ],
                false,
            ),
            (
                &ignoring,
                &[
                    ("True-Client-IP", "8.8.8.8"),
                    ("X-Forwarded-For", "10.1.1.9"),
                ],
                true,
            ),
        ];
        for (rules, headers, allowed) in cases {
            let outcome = run(rules, headers);
            assert_eq!(outcome.is_ok(), allowed, "{headers:?}: {outcome:?}");
        }
        let denied = run(rules, &[("X-Forwarded-For", "8.8.8.8")]).unwrap_err();
        assert_eq!(
            (denied.status, denied.code.as_ref()),
            (403, "accesscontrol.IPDeniedAccess")
        );
        assert_eq!(denied.message, "Access Denied for client ip : 8.8.8.8");
        assert_eq!(
            run(rules, &[("X-Forwarded-For", "junk")]).unwrap_err().name,
            "InvalidIPAddress"
        );
        assert!(
            run("<IPRules/>", &[]).is_ok(),
            "without rules everybody may pass"
        );
    }
}
