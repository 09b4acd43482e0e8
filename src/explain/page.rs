//! The explanation as text: the verdict first, then the reasons.

use std::fmt::Write;

use super::answer::{Backend, Considered, Explanation, Headers, Middleware, Said, Tls};
use super::ask::Ask;

/// The page for one request.
pub fn text(ask: &Ask, answer: &Explanation) -> String {
    let mut page = Page(format!("{} {}\n  {}\n", ask.method, ask.url(), verdict(answer)));
    page.optional("", answer.detail.as_deref());
    page.routes(&answer.considered);
    page.client(answer);
    page.tls(answer.tls.as_ref());
    page.middlewares(&answer.middlewares);
    page.path(answer);
    page.headers(answer.headers.as_ref());
    page.backends("Backends that may get it, all taken to be up", &answer.backends);
    page.backends("Other backends of the route", &answer.other_backends);
    page.policies(&answer.policies);
    page.0
}

fn verdict(answer: &Explanation) -> String {
    let taker = match (&answer.route, answer.endpoint) {
        (Some(route), _) => format!("route `{route}`"),
        (None, Some(endpoint)) => format!("the gateway's own endpoint `{endpoint}`"),
        (None, None) => "no route".to_owned(),
    };
    match (answer.status, &answer.location) {
        (None, _) => format!("{taker} sends it to {}", one_of(&answer.backends)),
        (Some(status), Some(location)) => format!("{taker}: the gateway redirects with {status} to {location}"),
        (Some(status), None) if answer.outcome == "ok" => format!("{taker} answers {status}"),
        (Some(status), None) => format!("{taker}: the gateway answers {status} ({})", answer.outcome),
    }
}

fn one_of(backends: &[Backend]) -> String {
    match backends {
        [only] => only.name.clone(),
        several => format!("one of {} backends", several.len()),
    }
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "  {}", text.trim_end());
    }

    fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "\n{text}");
    }

    fn optional(&mut self, before: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.line(&format!("{before}{text}"));
        }
    }

    /// Rows of cells, each column as wide as its widest cell.
    fn table(&mut self, rows: &[Vec<String>]) {
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        for row in rows {
            let cells = row.iter().enumerate();
            let padded = cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column).unwrap_or(0)));
            self.line(&padded.collect::<Vec<_>>().join("  "));
        }
    }

    fn tls(&mut self, tls: Option<&Tls>) {
        let Some(tls) = tls else { return };
        self.heading("TLS");
        for names in &tls.certificates {
            match names.as_slice() {
                [] => self.line("the certificate has no names"),
                names => self.line(&format!("the certificate is for {}", names.join(", "))),
            }
        }
        self.line(match tls.client_certificate {
            "required" => "the client has to show a certificate",
            "checked" => "a certificate of the client is checked when it shows one",
            _ => "the client is asked for no certificate",
        });
    }

    fn routes(&mut self, considered: &[Considered]) {
        if considered.is_empty() {
            return;
        }
        self.heading("Routes that come near, in their order of precedence");
        let host = |one: &Considered| match one.host.as_deref() {
            Some("*") => "any host".to_owned(),
            Some(host) => host.to_owned(),
            None => "no host of it".to_owned(),
        };
        let row = |one: &Considered| vec![one.route.clone(), one.path.clone(), host(one), one.sentence.clone()];
        self.table(&considered.iter().map(row).collect::<Vec<_>>());
    }

    fn client(&mut self, answer: &Explanation) {
        self.heading("The request as the gateway sees it");
        let trusted = match answer.peer_is_trusted {
            true => "a trusted proxy",
            false => "not a trusted proxy: what it says about the client does not count",
        };
        let methods = match answer.allowed_methods.as_slice() {
            [] => String::new(),
            methods if methods.contains(&answer.method) => format!("is allowed ({})", methods.join(", ")),
            methods => format!("is not allowed ({})", methods.join(", ")),
        };
        let mut rows = vec![
            vec!["client".to_owned(), format!("{}, {}", answer.client, answer.scheme)],
            vec!["peer".to_owned(), format!("{}, {trusted}", answer.peer)],
            vec!["host".to_owned(), answer.host.clone()],
            vec!["method".to_owned(), format!("{} {methods}", answer.method)],
        ];
        if answer.maintenance {
            rows.push(vec!["route".to_owned(), "is in maintenance".to_owned()]);
        }
        self.table(&rows);
    }

    fn middlewares(&mut self, middlewares: &[Middleware]) {
        if middlewares.is_empty() {
            return;
        }
        self.heading("Middlewares, in their order");
        let numbered = middlewares.iter().enumerate();
        let row = |(index, one): (usize, &Middleware)| {
            vec![format!("{}.", index + 1), one.name.clone(), one.kind.clone(), said(one)]
        };
        self.table(&numbered.map(row).collect::<Vec<_>>());
    }

    fn path(&mut self, answer: &Explanation) {
        self.heading("Path");
        let mut rows = vec![vec!["asked for".to_owned(), answer.path.clone()]];
        let after = answer.path_after_middlewares.as_ref().filter(|after| **after != answer.path);
        rows.extend(after.map(|after| vec!["after middlewares".to_owned(), after.clone()]));
        rows.extend(answer.sent.as_ref().map(|sent| vec!["sent".to_owned(), sent.clone()]));
        self.table(&rows);
    }

    fn headers(&mut self, headers: Option<&Headers>) {
        let Some(headers) = headers else { return };
        self.heading("Headers to the backend");
        let set = headers.set.iter().map(|one| vec!["set".to_owned(), format!("{}: {}", one.name, one.value)]);
        let removed = headers.removed.iter().map(|name| vec!["removed".to_owned(), name.clone()]);
        self.table(&set.chain(removed).collect::<Vec<_>>());
    }

    fn policies(&mut self, policies: &[String]) {
        if !policies.is_empty() {
            self.heading("When they fail or are busy");
            policies.iter().for_each(|sentence| self.line(sentence));
        }
    }

    fn backends(&mut self, heading: &str, backends: &[Backend]) {
        if backends.is_empty() {
            return;
        }
        self.heading(heading);
        let row = |one: &Backend| {
            let share = one.share.map_or_else(String::new, |share| format!("{share} %"));
            vec![one.name.clone(), share, one.sent.clone().unwrap_or_default(), one.reason.clone()]
        };
        self.table(&backends.iter().map(row).collect::<Vec<_>>());
    }
}

fn said(middleware: &Middleware) -> String {
    let status = middleware.status.map_or_else(String::new, |status| format!(" with {status}"));
    match middleware.verdict {
        Said::Passes => "lets it pass".to_owned(),
        Said::Refuses => format!("refuses it{status}"),
        Said::Answers => format!("answers it{status}"),
        Said::MustAsk => "would ask another server, or checks a slow hash: not tried here".to_owned(),
        Said::Applies => "changes the response".to_owned(),
        Said::OtherPaths => "is for other paths".to_owned(),
        Said::NotReached => "is not reached".to_owned(),
    }
}
