//! One HTTP connection, held open: which requests share a connection is the driver's business, so
//! there is no pool between.

use std::{fmt::Display, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{error::StoreError, server::Price};

/// An open connection to a shop.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
}

impl Client {
    /// Connects, and has one cheap request answered so that the connection is known to work.
    pub async fn connect(address: SocketAddr) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Connect { address, source };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| StoreError::Request {
                    request: "CONNECT".to_owned(),
                    source,
                })?;
        // Its error, if any, also reaches the request that is under way.
        tokio::spawn(connection);
        let mut client = Self { sender, address };
        client.get("/healthz").await?;
        Ok(client)
    }

    /// Opens `count` connections.
    pub async fn connect_many(address: SocketAddr, count: usize) -> Result<Vec<Self>, StoreError> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Self::connect(address).await?);
        }
        Ok(clients)
    }

    /// Fetches a page that has to exist.
    pub async fn get(&mut self, path: impl Display) -> Result<Bytes, StoreError> {
        self.send(Method::GET, &path.to_string(), Bytes::new())
            .await
    }

    /// Has the price of a product changed.
    pub async fn set_price(&mut self, product: u32, price_cents: i64) -> Result<(), StoreError> {
        let body = serde_json::to_vec(&Price { price_cents }).map_err(std::io::Error::from)?;
        self.send(
            Method::POST,
            &format!("/products/{product}/price"),
            body.into(),
        )
        .await?;
        Ok(())
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, StoreError> {
        let named = || format!("{method} {path}");
        let failed = |source| StoreError::Request {
            request: named(),
            source,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        // The paths are made of letters, digits and slashes, so neither of these is ever refused;
        // if one were, the shop's answer would say so.
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        if let Ok(host) = self.address.to_string().parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        self.sender.ready().await.map_err(failed)?;
        let response = self.sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(failed)?
            .to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        Err(StoreError::Status {
            request: named(),
            status: status.as_u16(),
            body,
        })
    }
}
