//! A point in time as text, in Go's layouts: the example `2006-01-02 15:04:05` instead of letters.

use chrono::{DateTime, Datelike, FixedOffset, Timelike};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Layouts with a name.
const NAMED: [(&str, &str); 15] = [
    ("", "2006-01-02T15:04:05Z07:00"),
    ("rfc3339", "2006-01-02T15:04:05Z07:00"),
    ("iso8601", "2006-01-02T15:04:05Z07:00"),
    ("rfc3339nano", "2006-01-02T15:04:05.999999999Z07:00"),
    ("rfc822", "02 Jan 06 15:04 MST"),
    ("rfc850", "Monday, 02-Jan-06 15:04:05 MST"),
    ("rfc1123", "Mon, 02 Jan 2006 15:04:05 MST"),
    ("rfc1123z", "Mon, 02 Jan 2006 15:04:05 -0700"),
    ("unix", "2006-01-02 15:04:05"),
    ("datetime", "2006-01-02 15:04:05"),
    ("date", "2006-01-02"),
    ("time", "15:04:05"),
    ("kitchen", "3:04PM"),
    ("ansic", "Mon Jan _2 15:04:05 2006"),
    ("unixdate", "Mon Jan _2 15:04:05 MST 2006"),
];
const RUBYDATE: &str = "Mon Jan 02 15:04:05 -0700 2006";

/// What a layout writes for a part of the time.
type Part = fn(&DateTime<FixedOffset>) -> String;

/// Parts of a layout; the longer one of two that begin alike stands first.
const PARTS: [(&str, Part); 27] = [
    ("January", |at| MONTHS[at.month0() as usize].to_owned()),
    ("Jan", |at| MONTHS[at.month0() as usize][..3].to_owned()),
    ("Monday", |at| DAYS[at.weekday().num_days_from_monday() as usize].to_owned()),
    ("Mon", |at| DAYS[at.weekday().num_days_from_monday() as usize][..3].to_owned()),
    ("MST", zone),
    ("2006", |at| format!("{:04}", at.year())),
    ("-07:00", |at| offset(at, ":")),
    ("-0700", |at| offset(at, "")),
    ("-07", |at| offset(at, "")[..3].to_owned()),
    ("Z07:00", |at| if at.offset().local_minus_utc() == 0 { "Z".to_owned() } else { offset(at, ":") }),
    ("Z0700", |at| if at.offset().local_minus_utc() == 0 { "Z".to_owned() } else { offset(at, "") }),
    ("002", |at| format!("{:03}", at.ordinal())),
    ("01", |at| format!("{:02}", at.month())),
    ("02", |at| format!("{:02}", at.day())),
    ("03", |at| format!("{:02}", at.hour12().1)),
    ("04", |at| format!("{:02}", at.minute())),
    ("05", |at| format!("{:02}", at.second())),
    ("06", |at| format!("{:02}", at.year().rem_euclid(100))),
    ("15", |at| format!("{:02}", at.hour())),
    ("_2", |at| format!("{:2}", at.day())),
    ("PM", |at| if at.hour12().0 { "PM" } else { "AM" }.to_owned()),
    ("pm", |at| if at.hour12().0 { "pm" } else { "am" }.to_owned()),
    ("1", |at| at.month().to_string()),
    ("2", |at| at.day().to_string()),
    ("3", |at| at.hour12().1.to_string()),
    ("4", |at| at.minute().to_string()),
    ("5", |at| at.second().to_string()),
];

/// Writes a moment in a named layout (any case) or in a layout of one's own.
pub fn format(at: &DateTime<FixedOffset>, layout: &str) -> String {
    let name = layout.to_ascii_lowercase();
    let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, layout)| *layout);
    let mut rest = match named {
        Some(named) => named,
        None if name == "rubydate" => RUBYDATE,
        None => layout,
    };
    let mut out = String::new();
    while let Some(first) = rest.chars().next() {
        if let Some((text, length)) = fraction(at, rest) {
            out.push_str(&text);
            rest = &rest[length..];
        } else if let Some((pattern, part)) = PARTS.iter().find(|(pattern, _)| rest.starts_with(pattern)) {
            out.push_str(&part(at));
            rest = &rest[pattern.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// `.000` gives that many digits, `.999` as many as matter.
fn fraction(at: &DateTime<FixedOffset>, layout: &str) -> Option<(String, usize)> {
    let digits = layout.strip_prefix(['.', ','])?;
    let first = digits.chars().next().filter(|first| matches!(first, '0' | '9'))?;
    let count = digits.len() - digits.trim_start_matches(first).len();
    if count > 9 || digits[count..].starts_with(|next: char| next.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{:09}", at.nanosecond() % 1_000_000_000);
    let shown = if first == '9' { nanos[..count].trim_end_matches('0') } else { &nanos[..count] };
    let text = if shown.is_empty() { String::new() } else { format!("{}{shown}", &layout[..1]) };
    Some((text, count + 1))
}

fn offset(at: &DateTime<FixedOffset>, colon: &str) -> String {
    let seconds = at.offset().local_minus_utc();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
}

/// The zone's name is known for UTC only; elsewhere Go, too, falls back to the offset.
fn zone(at: &DateTime<FixedOffset>) -> String {
    if at.offset().local_minus_utc() == 0 { "UTC".to_owned() } else { offset(at, "")[..3].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_written_as_go_writes_them() {
        let at = DateTime::parse_from_rfc3339("2026-03-04T15:06:07.089+02:00").unwrap();
        let utc = DateTime::parse_from_rfc3339("2026-11-22T00:00:00Z").unwrap();
        let table = [
            ("rfc3339", "2026-03-04T15:06:07+02:00", "2026-11-22T00:00:00Z"),
            ("", "2026-03-04T15:06:07+02:00", "2026-11-22T00:00:00Z"),
            ("RFC3339Nano", "2026-03-04T15:06:07.089+02:00", "2026-11-22T00:00:00Z"),
            ("rfc1123", "Wed, 04 Mar 2026 15:06:07 +02", "Sun, 22 Nov 2026 00:00:00 UTC"),
            ("rfc1123z", "Wed, 04 Mar 2026 15:06:07 +0200", "Sun, 22 Nov 2026 00:00:00 +0000"),
            ("rfc850", "Wednesday, 04-Mar-26 15:06:07 +02", "Sunday, 22-Nov-26 00:00:00 UTC"),
            ("kitchen", "3:06PM", "12:00AM"),
            ("ansic", "Wed Mar  4 15:06:07 2026", "Sun Nov 22 00:00:00 2026"),
            ("rubydate", "Wed Mar 04 15:06:07 +0200 2026", "Sun Nov 22 00:00:00 +0000 2026"),
            ("datetime", "2026-03-04 15:06:07", "2026-11-22 00:00:00"),
            ("2.1.2006", "4.3.2026", "22.11.2026"),
            ("15:04:05.000", "15:06:07.089", "00:00:00.000"),
        ];
        for (layout, first, second) in table {
            assert_eq!(format(&at, layout), first, "{layout}");
            assert_eq!(format(&utc, layout), second, "{layout}");
        }
    }
}
