//! What both kinds of requests (`request`, `stream`) answer alike when Pingora asks: it wants each to say it itself.

/// The methods of Pingora's session that hang on `head` and `digest` alone, and those for messages that HTTP does not have.
macro_rules! alike {
    () => {
        fn request_summary(&self) -> String {
            format!("{} {}", self.head.method, self.head.uri)
        }

        fn pseudo_raw_h1_request_header(&self) -> Bytes {
            pingora_core::protocols::http::v1::client::http_req_header_to_wire(&self.head)
                .map(|bytes| bytes.freeze())
                .unwrap_or_default()
        }

        fn digest(&self) -> Option<&Digest> {
            Some(&self.digest)
        }

        fn digest_mut(&mut self) -> Option<&mut Digest> {
            Arc::get_mut(&mut self.digest)
        }

        fn client_addr(&self) -> Option<&pingora_core::protocols::l4::socket::SocketAddr> {
            self.digest.socket_digest.as_ref()?.peer_addr()
        }

        fn server_addr(&self) -> Option<&pingora_core::protocols::l4::socket::SocketAddr> {
            self.digest.socket_digest.as_ref()?.local_addr()
        }

        fn take_custom_message_reader(
            &mut self,
        ) -> Option<Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
            None
        }

        fn restore_custom_message_reader(
            &mut self,
            _: Box<dyn futures::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
        ) -> Result<()> {
            Ok(())
        }

        fn take_custom_message_writer(
            &mut self,
        ) -> Option<Box<dyn pingora_core::protocols::http::custom::CustomMessageWrite>> {
            None
        }

        fn restore_custom_message_writer(
            &mut self,
            _: Box<dyn pingora_core::protocols::http::custom::CustomMessageWrite>,
        ) -> Result<()> {
            Ok(())
        }
    };
}

pub(super) use alike;
