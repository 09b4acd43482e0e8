//! Lets clients in or keeps them out by the country that their address is in.
//!
//! Clients of the machine itself and of private networks pass unasked; `paths` do not count. Spec middlewares §5.3. The
//! database is read again when its file changes (in Goma never; W-40). A country header of the client's own is removed from
//! every request, whether or not a country is found (W-11).
//!
//! ```yaml
//! - name: home-market
//!   type: geoBlock
//!   rule: { action: ALLOW, countries: [DE, AT, CH], allowUnknown: false, addCountryHeader: X-Country }
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use pingora_http::RequestHeader;
use prometheus::{IntCounter, IntCounterVec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_policy::Action;
use super::spelled::Spelled;
use super::{Flow, Middleware, Part, Scope, Settings, Verdict, paths};
use crate::config::{Place, Problem};
use crate::exchange::Exchange;
use crate::geoip::{Country, Database};
use crate::reply::Reply;

/// Lets clients in or keeps them out by country. Needs a MaxMind database: `GOMA_GEOIP_DB`, `gateway.geoip.database`,
/// `/etc/goma/country.mmdb` or `/etc/goma/GeoLite2-Country.mmdb`. Private addresses pass unasked.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GeoBlock {
    /// `ALLOW` lets in who comes from one of the countries, and nobody else; `DENY` keeps those out. In any case. Required.
    action: String,
    /// Countries, two letters of ISO 3166-1 each, in any case. Required.
    countries: Vec<String>,
    /// Status of the refusal; zero and below mean the default, 403.
    status_code: i64,
    /// What the refusal says. Default `Access denied from your region`.
    message: String,
    /// Whether clients pass whose country is not known, also when there is no database. Default true.
    allow_unknown: bool,
    /// Request header that tells the backend the country; the client's own is removed. Default: none.
    add_country_header: String,
}

impl Default for GeoBlock {
    fn default() -> Self {
        GeoBlock {
            action: String::new(),
            countries: Vec::new(),
            status_code: 403,
            message: MESSAGE.to_owned(),
            allow_unknown: true,
            add_country_header: String::new(),
        }
    }
}

const MESSAGE: &str = "Access denied from your region";

impl Settings for GeoBlock {
    const KIND: &'static [&'static str] = &["geoBlock"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/geoBlock.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let trouble = scope.tools.geo.database(scope.geo_database).trouble();
        let effect = match self.allow_unknown {
            true => "every client passes until it is there",
            false => "every client is refused until it is there",
        };
        let missing = trouble.map(|trouble| scope.place.warning(format!("has no country database: {trouble}"), effect));
        paths::ignored(scope).into_iter().chain(missing).collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let action = self.action(&place).map_err(|problem| problems.push(problem));
        let countries = self.countries(&place.child("countries"), &mut problems);
        let status = match self.status_code {
            ..=0 => StatusCode::FORBIDDEN,
            code => u16::try_from(code).ok().filter(|code| (200..=599).contains(code)).map_or_else(
                || {
                    problems.push(place.child("statusCode").error(format!("{code} is no status"), "use 200 to 599"));
                    StatusCode::FORBIDDEN
                },
                |code| StatusCode::from_u16(code).expect("200 to 599, see above"),
            ),
        };
        let header = self.header(&place.child("addCountryHeader")).map_err(|problem| problems.push(problem));
        let (Ok(action), Ok(header), true) = (action, header, problems.is_empty()) else { return Err(problems) };
        let denied = scope.tools.metrics.geo_denied().clone();
        Ok(Part::Step(Arc::new(Guard {
            name: scope.name.to_owned(),
            action,
            countries,
            reply: Reply::message(status, if self.message.is_empty() { MESSAGE.to_owned() } else { self.message }),
            allow_unknown: self.allow_unknown,
            identity: header.as_ref().and_then(|header| dashed(&header.name)).into_iter().collect(),
            header,
            database: scope.tools.geo.database(scope.geo_database),
            denied,
            unknown: scope.tools.metrics.geo_unknown().with_label_values(&[scope.name]),
        })))
    }
}

impl GeoBlock {
    fn action(&self, place: &Place) -> Result<Action, Problem> {
        let place = place.child("action");
        let none = || match self.action.trim() {
            "" => place.error("is missing", "say ALLOW or DENY"),
            other => place.error(format!("`{other}` is no action"), "use ALLOW or DENY"),
        };
        Action::read(&self.action).filter(|_| !self.action.trim().is_empty()).ok_or_else(none)
    }

    fn countries(&self, place: &Place, problems: &mut Vec<Problem>) -> Vec<Country> {
        if self.countries.is_empty() {
            problems.push(place.error("is missing", "list countries such as DE"));
        }
        let mut countries = Vec::new();
        for (index, text) in self.countries.iter().enumerate() {
            match Country::parse(text.trim()) {
                Some(country) => countries.push(country),
                None => problems.push(
                    place
                        .item(index)
                        .error(format!("`{text}` is no country"), "use two letters of ISO 3166-1 such as DE"),
                ),
            }
        }
        countries.sort_unstable();
        countries
    }

    fn header(&self, place: &Place) -> Result<Option<Spelled>, Problem> {
        let name = self.add_country_header.trim();
        if name.is_empty() {
            return Ok(None);
        }
        let error = || place.error(format!("`{name}` is no header name"), "use letters, digits and dashes");
        HeaderName::try_from(name).map(|name| Some(name.into())).map_err(|_| error())
    }
}

/// The name as identity headers are compared: with dashes, since backends read `X_Country` as the same variable.
fn dashed(name: &HeaderName) -> Option<HeaderName> {
    HeaderName::try_from(name.as_str().replace('_', "-")).ok()
}

struct Guard {
    name: String,
    action: Action,
    /// Sorted.
    countries: Vec<Country>,
    reply: Reply,
    allow_unknown: bool,
    header: Option<Spelled>,
    identity: Vec<HeaderName>,
    database: Arc<Database>,
    denied: IntCounterVec,
    unknown: IntCounter,
}

impl Middleware for Guard {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if is_inside(exchange.client) {
            return Flow::Next;
        }
        let country = self.database.country(exchange.client);
        let passes = match &country {
            Some(country) => self.action.admits(self.countries.binary_search(country).is_ok()),
            None => {
                self.unknown.inc();
                self.allow_unknown
            }
        };
        if !passes {
            let country = country.as_ref().map_or("unknown", Country::as_str);
            self.denied.with_label_values(&[country, &self.name]).inc();
            return Flow::Reply(Verdict::refuse(self.reply.clone(), format!("country: {country}")));
        }
        if let (Some(header), Some(country)) = (&self.header, country) {
            let value = HeaderValue::from_str(country.as_str()).expect("two ASCII letters make a header value");
            header.ask(head, value);
        }
        Flow::Next
    }

    fn identity(&self) -> &[HeaderName] {
        &self.identity
    }
}

/// Whether an address is of this machine or of a private network: no country has it.
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_have_no_country() {
        for (address, inside) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.0.1", true),
            ("169.254.1.1", true),
            ("0.0.0.0", true),
            ("::1", true),
            ("::", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("203.0.113.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_inside(address.parse().expect("an address")), inside, "{address}");
        }
    }
}
