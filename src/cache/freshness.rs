//! May a response be stored, for how long is it fresh, and may it answer this request? RFC 9111 §3, §4, RFC 5861.
//!
//! All times are milliseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};

use super::directives::{RequestControl, ResponseControl, digits};

/// Milliseconds since 1970.
pub fn now() -> u64 {
    millis(SystemTime::now())
}

/// Milliseconds since 1970; 0 for what was before.
pub fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The operator's word on what may be stored and reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Nothing is fresh for longer than this after it was fetched.
    pub max_ttl: Duration,
    /// How long a response is fresh that does not say; `None`: not at all.
    pub default_ttl: Option<Duration>,
    /// The largest `max-stale` of a client that counts.
    pub max_stale: Duration,
    /// Where a response does not say `stale-while-revalidate`.
    pub stale_while_revalidate: Duration,
    /// Where a response does not say `stale-if-error`.
    pub stale_if_error: Duration,
    /// The only statuses to store; empty: those that are not excluded.
    pub cacheable: Vec<u16>,
    /// Statuses not to store.
    pub excluded: Vec<u16>,
}

/// What matters of the request that a response answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// It says who the client is, to the gateway or to the backend. RFC 9111 §3.5.
    pub authorized: bool,
    /// It carries cookies that are not in the key.
    pub cookies: bool,
    /// When it went to the backend, and when the response was there.
    pub times: (u64, u64),
}

/// How a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it was of age 0; its age counts from here. RFC 9111 §4.2.3.
    pub born: u64,
    /// Until when it is fresh.
    pub fresh_until: u64,
    /// For how long it may be served stale while it is fetched anew.
    pub stale_while_revalidate: u64,
    /// For how long it may be served stale when the backend fails.
    pub stale_if_error: u64,
    /// Never to be served stale, whatever others say.
    pub must_revalidate: bool,
    /// Not to be served without asking the backend.
    pub no_cache: bool,
}

/// What to do with a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Serve it.
    Fresh,
    /// Serve it, stale as it is: the client said that it does not mind.
    Stale,
    /// Serve it stale, and fetch it anew beside that.
    StaleWhileRevalidate,
    /// Ask the backend; whether it may be served stale if that fails.
    Revalidate {
        /// Whether an error may be answered with it.
        stale_if_error: bool,
    },
}

impl Policy {
    /// Whether a response may be stored, and its terms.
    ///
    /// # Errors
    /// Why not, in a word.
    pub fn terms(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        control: &ResponseControl,
        asked: &Asked,
    ) -> Result<Terms, &'static str> {
        let cookies = headers.contains_key(header::SET_COOKIE) && !control.fields.contains(&header::SET_COOKIE);
        let shared = control.public || control.s_maxage.is_some() || control.must_revalidate;
        let understood = control.must_understand && UNDERSTOOD.contains(&status.as_u16());
        match () {
            () if !self.takes(status) => return Err("status"),
            () if control.must_understand && !understood => return Err("must-understand"),
            () if control.no_store && !understood => return Err("no-store"),
            () if control.private => return Err("private"),
            () if asked.authorized && !shared => return Err("authorization"),
            () if cookies => return Err("set-cookie"),
            () => {}
        }
        let (sent, came) = asked.times;
        let date = date(headers, header::DATE);
        let age = age(headers, date, sent, came).ok_or("age")?;
        let lifetime = self.lifetime(status, headers, control, date.unwrap_or(came), asked)?;
        // Before it came, where it was stale on its way: how stale it is counts from there.
        let fresh_until = came.saturating_add(lifetime).saturating_sub(age).min(came.saturating_add(ms(self.max_ttl)));
        let swr = control.stale_while_revalidate.map_or(ms(self.stale_while_revalidate), |seconds| seconds * 1000);
        let sie = control.stale_if_error.map_or(ms(self.stale_if_error), |seconds| seconds * 1000);
        let validates = headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED);
        let must_revalidate = control.must_revalidate || control.s_maxage.is_some() || control.no_cache;
        let useful = fresh_until > came && !control.no_cache
            || validates
            || !must_revalidate && (swr > 0 || sie > 0 || !self.max_stale.is_zero());
        if !useful {
            return Err("stale");
        }
        Ok(Terms {
            born: came.saturating_sub(age),
            fresh_until,
            stale_while_revalidate: swr,
            stale_if_error: sie,
            must_revalidate,
            no_cache: control.no_cache,
        })
    }

    fn takes(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        let listed = self.cacheable.is_empty() || self.cacheable.contains(&code);
        // Parts of a response, and validations of one, are not responses to keep. RFC 9111 §3.3, §4.3.3.
        listed && !self.excluded.contains(&code) && code >= 200 && !matches!(code, 206 | 304)
    }

    /// How long it is fresh, from when it was generated. RFC 9111 §4.2.1.
    fn lifetime(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        control: &ResponseControl,
        date: u64,
        asked: &Asked,
    ) -> Result<u64, &'static str> {
        if let Some(seconds) = control.lifetime() {
            return Ok(seconds * 1000);
        }
        if headers.contains_key(header::EXPIRES) && !control.targeted {
            // Several, or one that is no date: in the past. RFC 9111 §5.3.
            let mut lines = headers.get_all(header::EXPIRES).iter();
            let (first, more) = (lines.next(), lines.next().is_some());
            let expires = first.and_then(|value| parse_date(value.as_bytes())).filter(|_| !more);
            return Ok(expires.unwrap_or(0).saturating_sub(date));
        }
        match self.default_ttl {
            Some(ttl) if HEURISTIC.contains(&status.as_u16()) || self.cacheable.contains(&status.as_u16()) => {
                // Nothing says that the response is the same for all who carry cookies.
                if asked.cookies && !control.public { Err("cookies") } else { Ok(ms(ttl)) }
            }
            _ if control.no_cache || control.max_age.is_some() => Ok(0),
            _ => Err("no-lifetime"),
        }
    }

    /// What to do with a stored response for this request.
    pub fn judge(&self, terms: &Terms, control: &RequestControl, now: u64) -> Use {
        let age = now.saturating_sub(terms.born);
        let left = terms.fresh_until.saturating_sub(now);
        let stale_by = now.saturating_sub(terms.fresh_until);
        let wants = control.no_cache
            || control.max_age.is_some_and(|most| age > most * 1000)
            || control.min_fresh.is_some_and(|least| left < least * 1000);
        if wants || terms.no_cache {
            return Use::Revalidate { stale_if_error: false };
        }
        if now < terms.fresh_until {
            return Use::Fresh;
        }
        if terms.must_revalidate {
            return Use::Revalidate { stale_if_error: false };
        }
        let most = control.max_stale.map_or(0, |most| most.saturating_mul(1000)).min(ms(self.max_stale));
        if control.max_stale.is_some() && stale_by <= most {
            return Use::Stale;
        }
        if stale_by < terms.stale_while_revalidate {
            return Use::StaleWhileRevalidate;
        }
        Use::Revalidate { stale_if_error: stale_by < terms.stale_if_error }
    }
}

/// Statuses whose meaning this cache knows. RFC 9111 §5.2.2.3.
const UNDERSTOOD: [u16; 16] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 421, 451, 501];
/// Statuses that may be stored without a word about it. RFC 9110 §15.1.
const HEURISTIC: [u16; 10] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 501];

/// Corrected initial age, milliseconds. RFC 9111 §4.2.3. `None` when the response says an age that is none: such a response
/// counts as stale.
fn age(headers: &HeaderMap, date: Option<u64>, sent: u64, came: u64) -> Option<u64> {
    let mut said = 0;
    for line in headers.get_all(header::AGE) {
        // Of a list in one line the first member counts, of several lines the highest.
        let first = line.to_str().ok()?.split(',').next()?.trim();
        said = said.max(digits(first)?);
    }
    let apparent = date.map_or(0, |date| came.saturating_sub(date));
    // A date has whole seconds only.
    let apparent = apparent.saturating_sub(999);
    let corrected = said * 1000 + came.saturating_sub(sent);
    Some(apparent.max(corrected))
}

/// A date in a header, when it is there once and is one.
pub fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    parse_date(first.as_bytes())
}

fn parse_date(text: &[u8]) -> Option<u64> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok().map(millis)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
