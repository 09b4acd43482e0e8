use std::net::IpAddr;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::count::{Bounds, Count};
use super::super::info::{ConnInfo, Deadlines};
use super::super::wire::Wire;
use super::*;

/// A client and a request of it that has arrived, over a socket that holds no more than a few kilobytes.
async fn narrow(request: &str) -> (TcpStream, Http1Request) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
    let (socket, peer) = listener.accept().await.unwrap();
    let counted = Arc::<Count>::default().admit(IpAddr::from([127, 0, 0, 1]), Bounds::default()).unwrap();
    let stall = Some(Duration::from_secs(30));
    let deadlines = Deadlines { head: None, idle: None, read: None, write: None, stall };
    let mut conn = Conn::new(Wire::Plain(socket), ConnInfo::new(peer, "web".into(), None), deadlines, counted);
    client.try_write(request.as_bytes()).unwrap();
    conn.fill().await.unwrap();
    let head = gate::head(request.as_bytes(), &gate::Limits::default()).unwrap_or_else(|_| panic!("{request:?}"));
    let digest = Arc::new(super::super::http1::digest(&conn));
    let Ok(request) = Http1Request::new(conn, request.len(), &head, &Arc::default(), &digest) else { panic!() };
    (client, request)
}

/// A close has little time of its own. The response that leaves with it has all the time of a response.
#[tokio::test]
async fn the_last_response_waits_for_a_client_that_reads_late() {
    // The end of some of these is still here when there is no more room for it.
    let lengths = (0..24).map(|step| 16_384 + step * 4096);
    let late = lengths.map(|length| async move {
        let (mut client, mut request) = narrow("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let answers = tokio::spawn(async move {
            let mut head = ResponseHeader::build(200, None).unwrap();
            head.insert_header("Content-Length", length).unwrap();
            request.write_response_header(Box::new(head), false).await.unwrap();
            for sent in (0..length).step_by(4096) {
                let last = sent + 4096 == length;
                request.write_body(vec![b'x'; 4096].into(), last).await.unwrap();
            }
            request.finish().await.unwrap();
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        answers.await.unwrap();
        let body = got.len() - got.windows(4).position(|four| four == b"\r\n\r\n").unwrap() - 4;
        assert_eq!(body, length);
    });
    futures::future::join_all(late).await;
}
