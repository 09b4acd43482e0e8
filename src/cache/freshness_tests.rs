use http::HeaderName;

use super::*;

fn policy() -> Policy {
    Policy {
        max_ttl: Duration::from_secs(10_000),
        default_ttl: None,
        max_stale: Duration::ZERO,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        cacheable: Vec::new(),
        excluded: vec![500],
    }
}

const NOW: u64 = 1_800_000_000_000;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    map
}

fn at(offset_s: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(NOW.checked_add_signed(offset_s * 1000).unwrap());
    httpdate::fmt_http_date(at)
}

fn terms(policy: &Policy, status: u16, lines: &[(&str, &str)], asked: Asked) -> Result<Terms, &'static str> {
    let headers = headers(lines);
    let asked = Asked { times: (NOW, NOW), ..asked };
    policy.terms(StatusCode::from_u16(status).unwrap(), &headers, &ResponseControl::of(&headers), &asked)
}

/// Seconds for which a response is fresh when it comes, or why it is not stored.
fn fresh(lines: &[(&str, &str)]) -> Result<u64, &'static str> {
    terms(&policy(), 200, lines, Asked::default()).map(|terms| (terms.fresh_until - NOW) / 1000)
}

/// RFC 9111 §4.2.1, §4.2.3, §5.1, §5.3.
#[test]
fn freshness_is_calculated_as_the_rfc_says() {
    let (date, later, past) = (at(0), at(500), at(-500));
    for (lines, expected, what) in [
        (&[("cache-control", "max-age=60")][..], Ok(60), "max-age"),
        (&[("cache-control", "max-age=60, s-maxage=5")], Ok(5), "s-maxage first"),
        (&[("cache-control", "max-age=60"), ("expires", &later)], Ok(60), "max-age before Expires"),
        (&[("expires", &later), ("date", &date)], Ok(500), "Expires minus Date"),
        (&[("expires", &later), ("date", &past)], Ok(500), "an old date"),
        (&[("expires", &later)], Ok(500), "without Date"),
        (&[("expires", &past), ("date", &date)], Err("stale"), "in the past"),
        (&[("expires", "0"), ("date", &date)], Err("stale"), "no date"),
        (&[("expires", &later), ("expires", &later)], Err("stale"), "twice"),
        (&[("cache-control", "max-age=60"), ("age", "20")], Ok(40), "Age counts"),
        (&[("cache-control", "max-age=60"), ("age", "70")], Err("stale"), "too old already"),
        (&[("cache-control", "max-age=60"), ("age", "x")], Err("age"), "an age that is none"),
        (&[("cache-control", "max-age=60"), ("age", "-1")], Err("age"), "a negative one"),
        (&[("cache-control", "max-age=60"), ("age", "0, 70")], Ok(60), "the first of a list"),
        (&[("cache-control", "max-age=60"), ("age", "0"), ("age", "70")], Err("stale"), "the highest of two lines"),
        (&[("cache-control", "max-age=600"), ("date", &past)], Ok(100), "apparent age"),
        (&[("cache-control", "max-age=99999")], Ok(10_000), "no longer than maxTtl"),
        (&[], Err("no-lifetime"), "without a word it is not stored"),
        (&[("cache-control", "public")], Err("no-lifetime"), "public is no lifetime"),
        (&[("cache-control", "max-age=0"), ("etag", "\"a\"")], Ok(0), "to be validated"),
        (&[("cache-control", "no-cache"), ("etag", "\"a\"")], Ok(0), "the same"),
        (&[("cdn-cache-control", "max-age=9"), ("cache-control", "no-store")], Ok(9), "the targeted field"),
        (&[("cdn-cache-control", "max-age=\"9"), ("cache-control", "max-age=3")], Ok(3), "a broken one does not"),
        (&[("cdn-cache-control", "public"), ("expires", &later)], Err("no-lifetime"), "nor Expires beside it"),
    ] {
        assert_eq!(fresh(lines), expected, "{what}: {lines:?}");
    }
}

/// RFC 9111 §3, §3.5, §5.2.2: what MUST NOT be stored.
#[test]
fn what_must_not_be_stored_is_not() {
    let authorized = Asked { authorized: true, ..Asked::default() };
    let anyone = Asked::default();
    for (status, control, more, asked, expected) in [
        (200, "no-store, max-age=60", None, anyone, Some("no-store")),
        (200, "private, max-age=60", None, anyone, Some("private")),
        (200, "private=\"x-a\", max-age=60", None, anyone, None),
        (200, "max-age=60", None, authorized, Some("authorization")),
        (200, "max-age=60, public", None, authorized, None),
        (200, "s-maxage=60", None, authorized, None),
        (200, "max-age=60, must-revalidate", None, authorized, None),
        (200, "max-age=60", Some(("set-cookie", "a=b")), anyone, Some("set-cookie")),
        (200, "max-age=60, public", Some(("set-cookie", "a=b")), anyone, Some("set-cookie")),
        (200, "max-age=60, no-cache=\"set-cookie\"", Some(("set-cookie", "a=b")), anyone, None),
        (206, "max-age=60", None, anyone, Some("status")),
        (304, "max-age=60", None, anyone, Some("status")),
        (500, "max-age=60", None, anyone, Some("status")),
        (599, "max-age=60", None, anyone, None),
        (599, "max-age=60, must-understand", None, anyone, Some("must-understand")),
        (200, "max-age=60, must-understand, no-store", None, anyone, None),
    ] {
        let mut lines = vec![("cache-control", control)];
        lines.extend(more);
        let found = terms(&policy(), status, &lines, asked).err();
        assert_eq!(found, expected, "{status} {lines:?} {asked:?}");
    }
}

#[test]
fn the_operator_may_give_a_lifetime_to_what_has_none() {
    let policy = Policy { default_ttl: Some(Duration::from_secs(30)), ..policy() };
    let cookies = Asked { cookies: true, ..Asked::default() };
    for (status, lines, asked, expected) in [
        (200, &[][..], Asked::default(), Ok(30)),
        (404, &[], Asked::default(), Ok(30)),
        (201, &[], Asked::default(), Err("no-lifetime")),
        (200, &[("cache-control", "max-age=5")], Asked::default(), Ok(5)),
        (200, &[("cache-control", "no-store")], Asked::default(), Err("no-store")),
        (200, &[], cookies, Err("cookies")),
        (200, &[("cache-control", "public")], cookies, Ok(30)),
    ] {
        let found = terms(&policy, status, lines, asked).map(|terms| (terms.fresh_until - NOW) / 1000);
        assert_eq!(found, expected, "{status} {lines:?}");
    }
}

/// RFC 9111 §4.2.4, §5.2.1, RFC 5861.
#[test]
fn a_stored_response_is_used_as_both_sides_allow() {
    let stored = |lines: &[(&str, &str)]| terms(&policy(), 200, lines, Asked::default()).unwrap();
    let revalidate = Use::Revalidate { stale_if_error: false };
    let on_error = Use::Revalidate { stale_if_error: true };
    for (control, request, after_s, expected) in [
        ("max-age=60", "", 59, Use::Fresh),
        ("max-age=60", "", 60, revalidate),
        ("max-age=60", "no-cache", 1, revalidate),
        ("max-age=60", "max-age=0", 1, revalidate),
        ("max-age=60", "max-age=10", 10, Use::Fresh),
        ("max-age=60", "max-age=10", 11, revalidate),
        ("max-age=60", "min-fresh=10", 49, Use::Fresh),
        ("max-age=60", "min-fresh=10", 51, revalidate),
        ("max-age=60", "max-stale=10", 65, Use::Stale),
        ("max-age=60", "max-stale=10", 71, revalidate),
        ("max-age=60", "max-stale", 150, Use::Stale),
        ("max-age=60", "max-stale", 161, revalidate),
        ("max-age=60, must-revalidate", "max-stale", 65, revalidate),
        ("max-age=60, proxy-revalidate, stale-if-error=9", "", 65, revalidate),
        ("s-maxage=60, stale-while-revalidate=9", "", 65, revalidate),
        ("max-age=60, stale-while-revalidate=9", "", 65, Use::StaleWhileRevalidate),
        ("max-age=60, stale-while-revalidate=9", "", 70, revalidate),
        ("max-age=60, stale-if-error=9", "", 65, on_error),
        ("max-age=60, stale-if-error=9", "", 70, revalidate),
        ("max-age=60, stale-if-error=9", "no-cache", 65, revalidate),
        ("max-age=60, stale-if-error=9", "only-if-cached", 10, Use::Fresh),
    ] {
        let terms = stored(&[("cache-control", control)]);
        let request = match request {
            "" => RequestControl::default(),
            request => RequestControl::of(&headers(&[("cache-control", request)])),
        };
        let policy = Policy { max_stale: Duration::from_secs(100), ..policy() };
        let found = policy.judge(&terms, &request, NOW + after_s * 1000);
        assert_eq!(found, expected, "{control} asked with {request:?} after {after_s} s");
    }
    // Stale when it came: for how long counts from when its time was over, not from then.
    for (age, request, expected) in [
        ("65", "max-stale=10", Use::Stale),
        ("75", "max-stale=10", on_error),
        ("70", "max-stale=0", on_error),
        ("65", "", Use::StaleWhileRevalidate),
        ("75", "", on_error),
        ("85", "", revalidate),
    ] {
        let control = "max-age=60, stale-while-revalidate=9, stale-if-error=19";
        let lines = [("cache-control", control), ("age", age), ("etag", "\"a\"")];
        let request = RequestControl::of(&headers(&[("cache-control", request)]));
        let policy = Policy { max_stale: Duration::from_secs(100), ..policy() };
        assert_eq!(policy.judge(&stored(&lines), &request, NOW), expected, "age {age}, {request:?}");
    }
    let no_cache = stored(&[("cache-control", "no-cache, max-age=60"), ("etag", "\"a\"")]);
    assert_eq!(policy().judge(&no_cache, &RequestControl::default(), NOW), revalidate);
}
