//! The compatibility rows of the middlewares that guard and shape: one row a line of a table, by its number. A row that a
//! ruling or a fix corrects is tested in its corrected form. Rows without a number are of the same kind. Spec middlewares §11.

mod everywhere;
mod guards;
mod loading;
mod replies;
mod shaping;

use bytes::Bytes;

use crate::world::*;

/// A configuration, and what is asked of it.
pub struct Row {
    id: &'static str,
    gateway: &'static str,
    route: &'static str,
    middlewares: Vec<&'static str>,
    env: Option<(&'static str, String)>,
    asks: Vec<Ask>,
}

struct Ask {
    method: &'static str,
    target: String,
    host: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<Bytes>,
    backend: Option<Answer>,
    status: u16,
    text: Option<String>,
    fields: Vec<(&'static str, Vec<&'static str>)>,
    /// What the backend got: its target, or nothing at all.
    up: Option<Option<&'static str>>,
    saw: Vec<(&'static str, Vec<&'static str>)>,
}

impl Row {
    /// A route `/` with one middleware of these keys.
    pub fn new(id: &'static str, middleware: &'static str) -> Row {
        Row { middlewares: vec![middleware], ..Row::bare(id) }
    }

    /// A route `/` and nothing else.
    pub fn bare(id: &'static str) -> Row {
        Row { id, gateway: "", route: "path: /", middlewares: Vec::new(), env: None, asks: Vec::new() }
    }

    /// Another middleware of the route.
    pub fn and(mut self, middleware: &'static str) -> Row {
        self.middlewares.push(middleware);
        self
    }

    /// Keys of the gateway.
    pub fn gateway(self, gateway: &'static str) -> Row {
        Row { gateway, ..self }
    }

    /// Keys of the route, its `path` among them.
    pub fn route(self, route: &'static str) -> Row {
        Row { route, ..self }
    }

    pub fn env(self, name: &'static str, value: String) -> Row {
        Row { env: Some((name, value)), ..self }
    }

    /// A request: method and target.
    pub fn ask(mut self, request: &str) -> Row {
        let (method, target) = request.split_once(' ').expect("a method and a target");
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        self.asks.push(Ask {
            method: methods.into_iter().find(|known| *known == method).expect("a method"),
            target: target.to_owned(),
            host: "gateway.test",
            headers: Vec::new(),
            body: None,
            backend: None,
            status: 200,
            text: None,
            fields: Vec::new(),
            up: None,
            saw: Vec::new(),
        });
        self
    }

    fn last(&mut self) -> &mut Ask {
        self.asks.last_mut().expect("a request first")
    }

    /// The request has this header.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Row {
        self.last().headers.push((name, value));
        self
    }

    pub fn host(mut self, host: &'static str) -> Row {
        self.last().host = host;
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Row {
        self.last().body = Some(body.into());
        self
    }

    /// The backend answers this.
    pub fn backend(mut self, answer: Answer) -> Row {
        self.last().backend = Some(answer);
        self
    }

    /// The client gets this status.
    pub fn gets(mut self, status: u16) -> Row {
        self.last().status = status;
        self
    }

    /// And this body.
    pub fn text(mut self, text: impl Into<String>) -> Row {
        self.last().text = Some(text.into());
        self
    }

    /// And these values of a header; none at all for an empty list.
    pub fn field(mut self, name: &'static str, values: &[&'static str]) -> Row {
        self.last().fields.push((name, values.to_vec()));
        self
    }

    /// This status, and the backend sees nothing.
    pub fn refused(mut self, status: u16) -> Row {
        let ask = self.last();
        (ask.status, ask.up) = (status, Some(None));
        self
    }

    /// The backend gets this target.
    pub fn up(mut self, target: &'static str) -> Row {
        self.last().up = Some(Some(target));
        self
    }

    /// And these values of a header; none at all for an empty list.
    pub fn saw(mut self, name: &'static str, values: &[&'static str]) -> Row {
        self.last().saw.push((name, values.to_vec()));
        self
    }

    pub async fn plays(self) {
        let origin = Origin::start().await;
        let names: Vec<String> = (0..self.middlewares.len()).map(|index| format!("m{index}")).collect();
        let defined: Vec<String> =
            self.middlewares.iter().zip(&names).map(|(keys, name)| format!("- {{name: {name}, {keys}}}")).collect();
        let listed = match self.route.contains("middlewares:") {
            true => String::new(),
            false => format!(", middlewares: [{}]", names.join(", ")),
        };
        let mut gateway = Gateway::before(&origin)
            .gateway(self.gateway)
            .routes(&format!("- {{name: r, target: ORIGIN, {}{listed}}}", self.route))
            .middlewares(&defined.join("\n"));
        if let Some((name, value)) = &self.env {
            gateway = gateway.env(name, value);
        }
        let gateway = gateway.await;
        for ask in self.asks {
            ask.plays(self.id, &origin, &gateway).await;
        }
    }
}

impl Ask {
    async fn plays(self, row: &str, origin: &Origin, gateway: &Gateway) {
        let about = format!("row {row}: {} {} {:?}", self.method, self.target, self.headers);
        origin.forget();
        origin.always(self.backend.unwrap_or_else(Answer::echo));
        let mut request = gateway.request(self.method, &self.target).host(self.host);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let reply = request.await;
        assert_eq!(reply.status, self.status, "{about}: {}", reply.text());
        if let Some(text) = self.text {
            assert_eq!(reply.text(), text, "{about}");
        }
        for (name, values) in self.fields {
            assert_eq!(reply.headers.all(name), values, "{about}: {name}");
        }
        match self.up {
            Some(None) => assert!(origin.saw_nothing(), "{about}: it reached the backend"),
            Some(Some(target)) => assert_eq!(origin.last().target, target, "{about}"),
            None => {}
        }
        for (name, values) in self.saw {
            assert_eq!(origin.last().headers.all(name), values, "{about}: the backend's {name}");
        }
    }
}

/// Plays rows one after the other.
pub async fn play(rows: impl IntoIterator<Item = Row>) {
    for row in rows {
        row.plays().await;
    }
}

pub const JSON: &str = "application/json";
pub const PLAIN: &str = "text/plain; charset=utf-8";
