//! A browser without eyes: keeps cookies by site and path, follows redirects from site to site, fills in forms.

use std::sync::Mutex;

use super::client::{Reply, Request};
use super::origin::lock;

/// A browser. Names of sites lead to ports of this machine.
#[derive(Default)]
pub struct Browser {
    sites: Vec<(String, u16)>,
    cookies: Mutex<Vec<Kept>>,
}

/// A cookie as it was set.
#[derive(Clone, Debug)]
pub struct Kept {
    pub site: String,
    pub name: String,
    pub value: String,
    pub path: String,
    /// The whole `Set-Cookie` value.
    pub line: String,
}

/// A page, and where the browser found it.
#[derive(Clone, Debug)]
pub struct Page {
    pub url: String,
    pub reply: Reply,
    /// Every address on the way, the first one included.
    pub way: Vec<String>,
}

impl Page {
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    /// The query parameter of its address, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.url, name)
    }
}

/// A query parameter of an address, decoded.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1.split('#').next()?;
    goma_edge::fields::parameter(query, name).map(Into::into)
}

impl Browser {
    /// A browser that finds this site on this port.
    pub fn knowing(site: &str, port: u16) -> Browser {
        Browser { sites: vec![(site.to_owned(), port)], ..Browser::default() }
    }

    /// Opens an address as if it was typed, and follows where it leads.
    pub async fn open(&self, url: &str) -> Page {
        self.follow("GET", url, String::new(), |_| false).await
    }

    /// The same, but stops before an address that begins so.
    pub async fn open_until(&self, url: &str, end: &str) -> Page {
        self.follow("GET", url, String::new(), |next| next.starts_with(end)).await
    }

    /// Sends the first form of a page, with these fields beside its hidden ones.
    pub async fn submit(&self, page: &Page, fields: &[(&str, &str)], end: &str) -> Page {
        let text = page.reply.text();
        let form = text.split_once("<form").unwrap_or_else(|| panic!("no form on {}: {text}", page.url)).1;
        let form = form.split("</form>").next().unwrap_or_default();
        let action = attribute(form, "action").expect("a form leads somewhere");
        let hidden = form.split("<input").skip(1).filter(|input| attribute(input, "type").as_deref() == Some("hidden"));
        let hidden = hidden.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?)));
        let given = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let pairs: Vec<String> = hidden.chain(given).map(|(name, value)| format!("{name}={value}")).collect();
        self.follow("POST", &join(&page.url, &action), pairs.join("&"), |next| next.starts_with(end)).await
    }

    async fn follow(&self, method: &str, url: &str, body: String, end: impl Fn(&str) -> bool) -> Page {
        let (mut method, mut url, mut body, mut way) = (method.to_owned(), url.to_owned(), body, vec![url.to_owned()]);
        for _ in 0..20 {
            let reply = self.fetch(self.request(&method, &url, &body), &url).await;
            let location = reply.header("Location").map(|location| join(&url, location));
            let redirects = (300..400).contains(&reply.status);
            match location.filter(|_| redirects) {
                Some(next) if end(&next) => return Page { url: next, reply, way },
                Some(next) => {
                    if !matches!(reply.status, 307 | 308) {
                        (method, body) = ("GET".to_owned(), String::new());
                    }
                    way.push(next.clone());
                    url = next;
                }
                None => return Page { url, reply, way },
            }
        }
        panic!("redirected for ever: {way:?}");
    }

    /// A request of this browser, with its cookies: to be refined and given to [`fetch`](Self::fetch).
    pub fn request(&self, method: &str, url: &str, body: &str) -> Request {
        let (site, target) = split(url);
        let request = Request::new(self.port(site), method, target).host(site).header("Accept", "text/html,*/*;q=0.8");
        let request = match self.cookie_line(site, target) {
            line if line.is_empty() => request,
            line => request.header("Cookie", &line),
        };
        match body {
            "" => request,
            body => request.header("Content-Type", "application/x-www-form-urlencoded").body(body.to_owned()),
        }
    }

    /// Sends a request for this address and keeps the cookies that come back; follows nothing.
    pub async fn fetch(&self, request: Request, url: &str) -> Reply {
        let reply = request.await;
        self.keep(url, &reply);
        reply
    }

    /// Takes the cookies of a reply.
    pub fn keep(&self, url: &str, reply: &Reply) {
        let (site, _) = split(url);
        let mut cookies = lock(&self.cookies);
        for line in reply.headers.all("Set-Cookie") {
            let mut parts = line.split(';').map(str::trim);
            let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            let attribute = |wanted: &str| {
                let mut pairs = line.split(';').filter_map(|part| part.trim().split_once('='));
                pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
            };
            let path = attribute("path").unwrap_or_else(|| "/".to_owned());
            cookies.retain(|kept| (&*kept.site, &*kept.name, &*kept.path) != (site, name, &*path));
            let gone = attribute("max-age").is_some_and(|age| age == "0")
                || attribute("expires").is_some_and(|end| end.contains("1970"));
            if !gone {
                let (site, name, value) = (site.to_owned(), name.to_owned(), value.to_owned());
                cookies.push(Kept { site, name, value, path, line: line.to_owned() });
            }
        }
    }

    /// All cookies that are kept.
    pub fn cookies(&self) -> Vec<Kept> {
        lock(&self.cookies).clone()
    }

    /// The cookie of this name.
    pub fn cookie(&self, name: &str) -> Option<Kept> {
        self.cookies().into_iter().find(|kept| kept.name == name)
    }

    /// Puts cookies in place of those of the same name, site and path.
    pub fn put(&self, cookies: &[Kept]) {
        let mut kept = lock(&self.cookies);
        for cookie in cookies {
            kept.retain(|old| (&old.site, &old.name, &old.path) != (&cookie.site, &cookie.name, &cookie.path));
            kept.push(cookie.clone());
        }
    }

    /// Cookies for an address, those for the longest path first (RFC 6265 §5.4).
    fn cookie_line(&self, site: &str, target: &str) -> String {
        let path = target.split('?').next().unwrap_or_default();
        let fits = |kept: &&Kept| {
            let rest = path.strip_prefix(&*kept.path);
            kept.site == site
                && rest.is_some_and(|rest| rest.is_empty() || kept.path.ends_with('/') || rest.starts_with('/'))
        };
        let cookies = lock(&self.cookies);
        let mut fitting: Vec<&Kept> = cookies.iter().filter(fits).collect();
        fitting.sort_by_key(|kept| std::cmp::Reverse(kept.path.len()));
        fitting.iter().map(|kept| format!("{}={}", kept.name, kept.value)).collect::<Vec<_>>().join("; ")
    }

    fn port(&self, site: &str) -> u16 {
        let known = self.sites.iter().find(|(name, _)| name == site).map(|(_, port)| *port);
        let port = known.or_else(|| site.rsplit_once(':')?.1.parse().ok());
        port.unwrap_or_else(|| panic!("nobody knows {site}"))
    }
}

/// Site and target of an address.
fn split(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").unwrap_or_else(|| panic!("{url} is no address")).1;
    let rest = rest.split('#').next().unwrap_or_default();
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

/// An address as it stands on a page of another.
fn join(base: &str, reference: &str) -> String {
    let (site, target) = split(base);
    match reference {
        full if full.contains("://") => full.to_owned(),
        other if other.starts_with("//") => format!("http:{other}"),
        path if path.starts_with('/') => format!("http://{site}{path}"),
        name => format!("http://{site}{}/{name}", target.rsplit_once('/').map_or("", |(folder, _)| folder)),
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let value = tag[start..].split('"').next()?;
    Some(value.replace("&amp;", "&"))
}
