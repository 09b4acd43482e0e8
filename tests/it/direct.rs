//! Requests without a body share the connections that the gateway keeps, and nobody gets what belongs to another.

use std::future::IntoFuture;

use crate::world::{Answer, Gateway, Origin, Piece, eventually};

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

async fn gateway(origin: &Origin, transport: &str) -> Gateway {
    let transport = format!("networking: {{transport: {transport}}}");
    Gateway::before(origin).gateway(&transport).routes(ROUTE).await
}

#[tokio::test]
async fn requests_in_a_row_share_one_connection_across_a_reload() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{}").await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        assert_eq!(gateway.request(method, "/").await.status, 200, "{method}");
    }
    gateway.reload_routes("- {name: other, path: /, target: ORIGIN}").await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn what_comes_behind_a_response_is_for_nobody() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{}").await;
    origin.on(
        "/more",
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
    );
    origin.on("/none", Answer::raw("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison"));
    origin.on("/own", Answer::ok("own"));
    for (path, status, text) in [("/more", 200, "ok"), ("/none", 204, "")] {
        let reply = gateway.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{path}");
        assert_eq!(gateway.get("/own").await.text(), "own", "after {path}");
    }
}

#[tokio::test]
async fn a_connection_of_a_backend_that_says_close_is_not_used_again() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{}").await;
    origin.always(Answer::ok("bye").closing());
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await.text(), "bye");
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn an_unused_connection_is_let_go_in_time() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{idleConnTimeout: 1}").await;
    assert_eq!(gateway.get("/").await.status, 200);
    eventually("the connection is closed", async || (origin.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn no_more_connections_are_kept_than_the_operator_says() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{maxIdleConns: 2}").await;
    origin.always(Answer::pieces([Piece::Hold, Piece::Data("held".into())]));
    let requests: Vec<_> = (0..5).map(|_| tokio::spawn(gateway.get("/").into_future())).collect();
    eventually("all are with the backend", async || (origin.seen().len() == 5).then_some(())).await;
    requests.iter().for_each(|_| origin.release());
    for request in requests {
        assert_eq!(request.await.unwrap().text(), "held");
    }
    eventually("two are left", async || (origin.open() == 2).then_some(())).await;
}
