//! Medians: few rounds on a noisy machine, so no means.

/// The median, the lower of the middle two for an even count; `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values
        .into_iter()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().checked_sub(1)? / 2;
    sorted.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        for (values, expected) in [
            (vec![], None),
            (vec![2.0], Some(2.0)),
            (vec![3.0, 1.0, 2.0], Some(2.0)),
            (vec![4.0, 1.0, 3.0, 2.0], Some(2.0)),
            (vec![f64::NAN, 5.0], Some(5.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }
}
