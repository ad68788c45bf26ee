//! Caches that policies name.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Entity, Fields, Kind, Stamp};
use crate::dialects::apigee::date::Civil;
use crate::dialects::apigee::error::ApiError;

/// How long an entry stays when neither policy nor cache says so, in seconds.
pub const LIFE_SECONDS_DEFAULT: u32 = 300;

/// A cache of an environment. `maxElementsInMemory` and `inMemorySizeInKB` limit it on each node; what is said of disks is
/// kept for answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// When entries end.
    pub expiry: Expiry,
    /// Entries that are larger are not kept, in KiB; none: no limit of the cache's own.
    #[serde(default)]
    pub skip_if_larger_kib: Option<u32>,
    /// What else the client set, as it came.
    #[serde(default)]
    pub further: Map<String, Value>,
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// When entries of a cache end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// So many seconds after they were put in; `0`: never.
    Seconds(u32),
    /// At this time of day, in seconds after midnight UTC.
    TimeOfDay(u32),
    /// On this day at its beginning in UTC, `MM-DD-YYYY`.
    Date(String),
}

/// The table of the entry cache that holds a cache's entries.
pub fn entries_table(organization: &str, environment: &str, cache: &str) -> String {
    format!("cache\u{1f}{organization}\u{1f}{environment}\u{1f}{cache}")
}

impl Entity for Cache {
    const KIND: Kind = Kind::Cache;
}

impl Cache {
    /// The fields that say how much room a cache has.
    const SIZES: [&str; 8] = [
        "distributed",
        "inMemorySizeInKB",
        "maxElementsInMemory",
        "maxElementsOnDisk",
        "diskSizeInMB",
        "compression",
        "overflowToDisk",
        "persistent",
    ];

    /// Reads a body; `name` is that of the path or query, if there is one.
    ///
    /// # Errors
    ///
    /// One that names the field.
    pub fn read(mut fields: Fields, stamp: Stamp) -> Result<Self, ApiError> {
        let name = fields.name()?;
        let description = fields.text("description")?.unwrap_or_default();
        let expiry = match fields.object("expirySettings")? {
            Some(settings) => read_expiry(settings)?,
            None => Expiry::Seconds(LIFE_SECONDS_DEFAULT),
        };
        let skip_if_larger_kib = fields
            .number("skipCacheIfElementSizeInKBExceeds")?
            .map(|kib| {
                u32::try_from(kib).map_err(|_| {
                    ApiError::field("skipCacheIfElementSizeInKBExceeds", "is out of range")
                })
            })
            .transpose()?;
        let mut further = Map::new();
        for name in Self::SIZES {
            if let Some(value) = fields.take(name) {
                further.insert(name.to_owned(), value);
            }
        }
        fields.ignore(&[]);
        fields.finish()?;
        Ok(Self {
            name,
            description,
            expiry,
            skip_if_larger_kib,
            further,
            stamp,
        })
    }

    /// A size that the client set: a number above 0, or the text of one.
    pub fn size(&self, name: &str) -> Option<u64> {
        let number = match self.further.get(name)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.filter(|number| *number > 0)
    }

    /// The answer.
    pub fn to_json(&self) -> Value {
        let expiry = match &self.expiry {
            Expiry::Seconds(seconds) => {
                json!({"timeoutInSec": {"value": seconds.to_string()}, "valuesNull": false})
            }
            Expiry::TimeOfDay(seconds) => {
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                let text = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
                json!({"timeOfDay": {"value": text}, "valuesNull": false})
            }
            Expiry::Date(date) => json!({"expiryDate": {"value": date}, "valuesNull": false}),
        };
        let mut answer = json!({
            "name": self.name,
            "description": self.description,
            "expirySettings": expiry,
        });
        if let Some(fields) = answer.as_object_mut() {
            for (name, value) in &self.further {
                fields.insert(name.clone(), value.clone());
            }
            if let Some(kib) = self.skip_if_larger_kib {
                let name = "skipCacheIfElementSizeInKBExceeds".to_owned();
                fields.insert(name, Value::from(kib.to_string()));
            }
        }
        answer
    }
}

/// One of the three forms; with several the most exact one counts, as in Apigee: seconds, time of day, date.
fn read_expiry(mut settings: Fields) -> Result<Expiry, ApiError> {
    settings.ignore(&["valuesNull"]);
    let mut value = |name: &str| -> Result<Option<String>, ApiError> {
        match settings.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => {
                let mut fields = Fields::new(fields);
                let value = fields.text("value")?;
                fields.finish()?;
                Ok(value)
            }
            Some(other) => Ok(Some(match other {
                Value::String(text) => text,
                other => other.to_string(),
            })),
        }
    };
    let (seconds, time, date) = (
        value("timeoutInSec")?,
        value("timeOfDay")?,
        value("expiryDate")?,
    );
    settings.finish()?;
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    if let Some(text) = given(seconds) {
        // -1 is how clients say that entries do not end.
        return match text.trim().parse::<i64>() {
            Ok(seconds) if seconds <= 0 => Ok(Expiry::Seconds(0)),
            Ok(seconds) => Ok(Expiry::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX))),
            Err(_) => Err(ApiError::field("timeoutInSec", "is not a whole number")),
        };
    }
    if let Some(text) = given(time) {
        return parse_time(text.trim())
            .map(Expiry::TimeOfDay)
            .ok_or_else(|| ApiError::field("timeOfDay", "expected HH:MM:SS"));
    }
    match given(date) {
        Some(text) if parse_date(text.trim()).is_some() => Ok(Expiry::Date(text.trim().to_owned())),
        Some(_) => Err(ApiError::field("expiryDate", "expected MM-DD-YYYY")),
        None => Ok(Expiry::Seconds(LIFE_SECONDS_DEFAULT)),
    }
}

/// `HH:MM:SS` as seconds after midnight.
pub fn parse_time(text: &str) -> Option<u32> {
    let mut parts = text.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let sound = hours < 24 && minutes < 60 && seconds < 60 && parts.next().is_none();
    sound.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// `MM-DD-YYYY` as the beginning of that day in UTC, in milliseconds since 1970.
pub fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.parse::<u32>().ok()
    };
    let (month, day, year) = (number(2)?, number(2)?, number(4)?);
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day) && parts.next().is_none();
    let beginning = Civil {
        year: i64::from(year),
        month,
        day,
        hour: 0,
        minute: 0,
        second: 0,
        millisecond: 0,
        weekday: 0,
        day_of_year: 1,
    };
    sound.then(|| beginning.millis())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn expiry_has_three_forms() {
        for (given, expected) in [
            (json!({}), Expiry::Seconds(300)),
            (
                json!({"timeoutInSec": {"value": "60"}}),
                Expiry::Seconds(60),
            ),
            (json!({"timeoutInSec": 0}), Expiry::Seconds(0)),
            (
                json!({"timeOfDay": {"value": "10:15:35"}, "valuesNull": false}),
                Expiry::TimeOfDay(36_935),
            ),
            (
                json!({"expiryDate": {"value": "12-31-9999"}}),
                Expiry::Date("12-31-9999".to_owned()),
            ),
        ] {
            let body = json!({"name": "c", "expirySettings": given});
            let fields = Fields::new(body.as_object().cloned().unwrap());
            let cache = Cache::read(fields, Stamp::default()).unwrap();
            assert_eq!(cache.expiry, expected);
        }
        assert_eq!(parse_time("24:00:00"), None);
        assert_eq!(parse_date("13-01-2020"), None);
        assert_eq!(parse_date("01-02-1970"), Some(86_400_000));
    }
}
