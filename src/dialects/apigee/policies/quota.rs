//! `Quota`: so many calls in a time.

use serde::{Deserialize, Serialize};

use super::texts::{RefOrText, place};
use super::{Parsed, PolicyReader};
use crate::base::source_ref::SourceRef;
use crate::dialects::apigee::date::Civil;
use crate::dialects::apigee::xml::{Element, Fields, Findings};

/// Requests when nobody says how many.
const COUNT_DEFAULT: u64 = 2000;

/// How a window is laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// Ends with the minute, hour, day, week or month of the clock.
    Clock,
    /// Begins at a moment and repeats; seconds since 1970.
    Calendar(i64),
    /// Begins with the first call.
    Flexible,
    /// Reaches back from each call.
    Rolling,
}

/// The unit of a window's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Unit {
    /// The unit of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim() {
            "second" => Self::Second,
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            _ => return None,
        })
    }

    /// Length in seconds; a month counts 28 days, as Apigee counts it.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 28 * 86_400,
        }
    }
}

/// How many calls in which time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allowance {
    /// Where the limit comes from when the variable says nothing.
    pub count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_reference: Option<String>,
    /// A variable that names a class of callers, with limits by class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<(String, Vec<(String, u64)>)>,
    pub interval: RefOrText,
    pub unit: RefOrText,
}

/// The policy as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub manner: Manner,
    /// What counts where no product says anything. None only with `product_step`: then nothing is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// The step whose product says how many: its variables come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_step: Option<String>,
}

pub(super) fn parse(reader: &mut PolicyReader<'_, '_>) -> Option<Parsed> {
    let place_of_all = reader.fields.place();
    let kind = reader.fields.attribute_text("type").map(str::to_owned);
    let findings = &mut *reader.findings;
    let mut fields =
        |name: &'static str, findings: &mut Findings| reader.fields.child(name, findings);
    let start = fields("StartTime", findings).map(|element| (element, element.text().into_owned()));
    let manner = match kind.as_deref() {
        None | Some("default" | "") => Manner::Clock,
        Some("flexi") => Manner::Flexible,
        Some("rollingwindow") => Manner::Rolling,
        Some("calendar") => {
            let Some((element, text)) = &start else {
                findings.error(
                    "missing-start-time",
                    place_of_all,
                    "type 'calendar' needs <StartTime>yyyy-MM-dd HH:mm:ss</StartTime>",
                );
                return None;
            };
            let Some(start) = parse_moment(text) else {
                findings.error(
                    "invalid-start-time",
                    place(*element),
                    format!(
                        "'{text}' is no moment, expected yyyy-MM-dd HH:mm:ss (InvalidStartTime)"
                    ),
                );
                return None;
            };
            Manner::Calendar(start)
        }
        Some(other) => {
            findings.error(
                "invalid-quota-type",
                place_of_all,
                format!("type '{other}' is not known, allowed are calendar, flexi and rollingwindow (InvalidQuotaType)"),
            );
            return None;
        }
    };
    if let (Some((element, _)), false) = (&start, matches!(manner, Manner::Calendar(_))) {
        findings.error(
            "start-time",
            place(*element),
            "is for type 'calendar' only (StartTimeNotSupported)",
        );
    }
    let own = Written {
        allow: fields("Allow", findings),
        interval: fields("Interval", findings),
        unit: fields("TimeUnit", findings),
    };
    let mut product_step = None;
    let mut of_product = None;
    if let Some(element) = fields("UseQuotaConfigInAPIProduct", findings) {
        let mut inner = Fields::new(element);
        product_step = Some(inner.required_attribute("stepName", findings)?.to_owned());
        if let Some(default) = inner.child("DefaultConfig", findings) {
            let mut inner = Fields::new(default);
            let written = Written {
                allow: inner.child("Allow", findings),
                interval: inner.child("Interval", findings),
                unit: inner.child("TimeUnit", findings),
            };
            inner.finish(findings);
            of_product = Some(written.read(place(default), findings)?);
        }
        inner.finish(findings);
    }
    let is_written = own.interval.is_some() || own.unit.is_some();
    let allowance = match of_product {
        Some(default) => {
            if own.allow.is_some() || is_written {
                findings.warning(
                    "no-effect",
                    place_of_all.clone(),
                    "<Allow>, <Interval> and <TimeUnit> have no effect beside <DefaultConfig>",
                );
            }
            Some(default)
        }
        None if product_step.is_some() && !is_written => None,
        None => Some(own.read(place_of_all.clone(), findings)?),
    };
    let mut reference = |name: &'static str| {
        let element = fields(name, findings)?;
        RefOrText::read(element, findings).reference
    };
    let (identifier, weight) = (reference("Identifier"), reference("MessageWeight"));
    // Every node counts exactly by itself, at once, whatever these say.
    reader.fields.ignore(&[
        "Distributed",
        "Synchronous",
        "PreciseAtSecondsLevel",
        "AsynchronousConfiguration",
    ]);
    for (name, reason) in [
        ("SharedName", "counters cannot be shared between policies"),
        ("CountOnly", "a quota counts and enforces"),
        ("EnforceOnly", "a quota counts and enforces"),
    ] {
        reader.fields.refuse(name, reason, reader.findings);
    }
    reader.parsed(&Config {
        manner,
        allowance,
        identifier,
        weight,
        product_step,
    })
}

/// The elements that say how many calls in which time.
struct Written<'a> {
    allow: Option<Element<'a>>,
    interval: Option<Element<'a>>,
    unit: Option<Element<'a>>,
}

impl Written<'_> {
    fn read(self, at: SourceRef, findings: &mut Findings) -> Option<Allowance> {
        let (count, count_reference, class) = match self.allow {
            Some(element) => read_allow(element, findings),
            None => (COUNT_DEFAULT, None, None),
        };
        let mut text = |element: Option<Element<'_>>| {
            element
                .map(|element| RefOrText::read(element, findings))
                .unwrap_or_default()
        };
        let (interval, unit) = (text(self.interval), text(self.unit));
        let sound = |text: &str| text.trim().parse::<u32>().is_ok_and(|number| number > 0);
        let wrong = if interval.is_empty() || unit.is_empty() {
            Some(("missing-interval", "needs <Interval> and <TimeUnit>"))
        } else if interval.text.as_deref().is_some_and(|text| !sound(text)) {
            Some((
                "invalid-interval",
                "<Interval> must be a whole number from 1 (InvalidQuotaInterval)",
            ))
        } else if unit
            .text
            .as_deref()
            .is_some_and(|text| Unit::from_word(text).is_none())
        {
            Some((
                "invalid-time-unit",
                "<TimeUnit> must be second, minute, hour, day, week or month (InvalidQuotaTimeUnit)",
            ))
        } else {
            None
        };
        if let Some((code, message)) = wrong {
            findings.error(code, at, message);
            return None;
        }
        Some(Allowance {
            count,
            count_reference,
            class,
            interval,
            unit,
        })
    }
}

type Allow = (u64, Option<String>, Option<(String, Vec<(String, u64)>)>);

fn read_allow(element: Element<'_>, findings: &mut Findings) -> Allow {
    let mut fields = Fields::new(element);
    let count = fields.attribute_text("count").map(str::to_owned);
    let reference = fields.attribute_text("countRef").map(str::to_owned);
    let number = |text: &str, findings: &mut Findings| {
        text.trim().parse().unwrap_or_else(|_| {
            findings.error(
                "invalid-count",
                place(element),
                format!("'{text}' is not a whole number"),
            );
            0
        })
    };
    let class = fields.child("Class", findings).and_then(|class| {
        let mut inner = Fields::new(class);
        let reference = inner.required_attribute("ref", findings)?.to_owned();
        let mut limits = Vec::new();
        for allow in inner.children("Allow") {
            let mut limit = Fields::new(allow);
            let name = limit.required_attribute("class", findings);
            let count = limit.required_attribute("count", findings);
            limit.finish(findings);
            if let (Some(name), Some(count)) = (name, count) {
                limits.push((name.to_owned(), number(count, findings)));
            }
        }
        inner.finish(findings);
        Some((reference, limits))
    });
    let count = count.map_or(COUNT_DEFAULT, |count| number(&count, findings));
    fields.finish(findings);
    (count, reference, class)
}

/// `yyyy-MM-dd HH:mm:ss` in UTC as seconds since 1970; numbers need no zeros in front.
pub fn parse_moment(text: &str) -> Option<i64> {
    let (date, time) = text.trim().split_once(' ')?;
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let all: Option<Vec<i64>> = text
            .trim()
            .split(separator)
            .map(|part| part.parse().ok())
            .collect();
        all?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let sound = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    if !sound {
        return None;
    }
    let small = |number: i64| u32::try_from(number).unwrap_or_default();
    let moment = Civil {
        year,
        month: small(month),
        day: small(day),
        hour: small(hour),
        minute: small(minute),
        second: small(second),
        ..Civil::of_millis(0)
    };
    Some(moment.millis() / 1000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::test_support::read;
    use super::*;

    #[test]
    fn moments_are_read() {
        for (text, seconds) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("2016-3-31 00:00:00", Some(1_459_382_400)),
            ("2024-02-29 12:34:56", Some(1_709_210_096)),
            ("2024-13-01 00:00:00", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_moment(text), seconds, "{text}");
        }
    }

    #[test]
    fn quotas_are_read_and_judged() {
        let (config, _, _) = read::<Config>(
            "<Quota name='q' type='calendar'><StartTime>2024-01-01 00:00:00</StartTime>\
             <Allow count='5' countRef='c'/><Interval>1</Interval><TimeUnit>minute</TimeUnit>\
             <Identifier ref='client_id'/><Distributed>true</Distributed></Quota>",
        );
        let config = config.unwrap();
        assert_eq!(config.manner, Manner::Calendar(1_704_067_200));
        let allowance = config.allowance.unwrap();
        assert_eq!(
            (allowance.count, allowance.count_reference.as_deref()),
            (5, Some("c"))
        );
        for body in [
            "<Interval>0</Interval><TimeUnit>minute</TimeUnit>",
            "<Interval>1</Interval><TimeUnit>year</TimeUnit>",
            "<Interval>1</Interval>",
            "<UseQuotaConfigInAPIProduct stepName='v'><DefaultConfig><Allow count='1'/></DefaultConfig></UseQuotaConfigInAPIProduct>",
            "<UseQuotaConfigInAPIProduct/>",
        ] {
            let (config, findings, _) = read::<Config>(&format!("<Quota name='q'>{body}</Quota>"));
            assert!(config.is_none() && findings.iter().any(|one| one.is_error()));
        }
    }

    #[test]
    fn limits_of_products_may_have_defaults() {
        let product = |inside: &str| {
            let xml = format!(
                "<Quota name='q'><UseQuotaConfigInAPIProduct stepName='v'>{inside}</UseQuotaConfigInAPIProduct></Quota>"
            );
            let (config, findings, _) = read::<Config>(&xml);
            assert!(!findings.iter().any(|one| one.is_error()), "{findings:?}");
            config.unwrap()
        };
        let bare = product("");
        assert_eq!(
            (bare.product_step.as_deref(), bare.allowance),
            (Some("v"), None)
        );
        let default = product(
            "<DefaultConfig><Allow count='7'/><Interval>2</Interval><TimeUnit>hour</TimeUnit></DefaultConfig>",
        );
        let allowance = default.allowance.unwrap();
        assert_eq!(
            (allowance.count, allowance.unit.text.as_deref()),
            (7, Some("hour"))
        );
    }
}
