//! Durations as Go writes them: `300ms`, `1m30s`, or a number of nanoseconds.

use std::time::Duration;

use serde_json::Value;

/// Longest duration that is taken.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads `1h2m3.5s` and the like. Negative and overlong ones are errors.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .filter(|length| *length > 0)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let length = tail
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(length);
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= DURATION_MAX)
}

/// The same from JSON: text, or a number of nanoseconds.
pub fn duration_of(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => parse_duration(text),
        Value::Number(number) => number
            .as_u64()
            .map(Duration::from_nanos)
            .filter(|duration| *duration <= DURATION_MAX),
        _ => None,
    }
}

/// A timeout as a configuration entry has it: none at all means that nobody names one, as nothing does.
///
/// # Errors
/// Names the field that is no duration.
pub fn timeout_of(field: &str, value: Option<&Value>) -> Result<Option<Duration>, String> {
    let Some(value) = value else { return Ok(None) };
    match duration_of(value) {
        Some(duration) => Ok(Some(duration).filter(|it| !it.is_zero())),
        None => Err(format!("{field} {value} is not a duration")),
    }
}

/// A duration as the agent reads it. Never rounds to nothing: half a millisecond is one.
pub fn show_duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_s_notation() {
        for (text, milliseconds) in [
            ("5s", Some(5_000)),
            ("300ms", Some(300)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("5d", None),
            ("99999999h", None),
            ("1..5s", None),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        assert_eq!(show_duration(Duration::from_micros(5)), "1ms");
    }
}
