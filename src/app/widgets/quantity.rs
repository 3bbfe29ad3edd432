//! Durations, changes and tables as text.

/// `h:mm:ss`; `–` for NaN.
pub fn duration(secs: f64) -> String {
    if !secs.is_finite() {
        return "–".into();
    }
    let secs = secs.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

/// A difference of fractions in percentage points with its sign, as `+1.2 points`.
pub fn points(difference: f64) -> String {
    if !difference.is_finite() {
        return "–".into();
    }
    let tenths = (1000.0 * difference).round() / 10.0;
    let sign = if tenths < 0.0 { "−" } else { "+" };
    format!("{}{:.1} points", if tenths == 0.0 { "±" } else { sign }, tenths.abs())
}

/// A fraction as a percentage with as many decimals as needed, at most two.
pub fn short_percent(fraction: f64) -> String {
    let value = (10_000.0 * fraction).round() / 100.0;
    format!("{} %", if value == 0.0 { 0.0 } else { value }).replace('-', "−")
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Comma-separated values with a header line.
pub fn table<R: AsRef<[String]>>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory fails only for rows of unequal length, which the callers' types rule out.
    let _ = writer.write_record(header);
    for row in rows {
        let _ = writer.write_record(row.as_ref());
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_changes_as_people_write_them() {
        assert_eq!(duration(0.4), "0:00:00");
        assert_eq!(duration(3725.6), "1:02:06");
        assert_eq!(duration(360_000.0), "100:00:00");
        assert_eq!(duration(f64::NAN), "–");
        assert_eq!(points(0.0123), "+1.2 points");
        assert_eq!(points(-0.2), "−20.0 points");
        assert_eq!(points(-0.0001), "±0.0 points");
        assert_eq!((short_percent(0.075), short_percent(-0.2)), ("7.5 %".into(), "−20 %".into()));
        assert_eq!((grouped(7), grouped(1234), grouped(1_234_567)), ("7".into(), "1,234".into(), "1,234,567".into()));
    }

    #[test]
    fn names_with_commas_stay_one_value() {
        let rows = [vec!["a, b".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["class", "value"], rows), "class,value\n\"a, b\",1\n");
    }
}
