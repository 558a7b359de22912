//! The shop over HTTP: routes, and the listener they are served on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    error::{ShopError, StoreError},
    page_cache::PageCache,
    pages::Page,
    shop::Shop,
};

/// The body of a price change, and of its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Price {
    pub price_cents: i64,
}

/// Takes a port of the loopback interface; 0 takes any free one.
pub async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), StoreError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StoreError::PortInUse(port),
            _ => StoreError::Listen { address, source },
        })?;
    let address = listener
        .local_addr()
        .map_err(|source| StoreError::Listen { address, source })?;
    Ok((listener, address))
}

/// Serves the shop until the task is stopped.
pub async fn serve(listener: TcpListener, shop: Arc<Shop>) -> Result<(), StoreError> {
    // Small answers must not wait to be sent with later ones. Where the option cannot be set the
    // shop is merely slower.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router(shop))
        .await
        .map_err(StoreError::Serve)
}

fn router(shop: Arc<Shop>) -> Router {
    let router = Router::new()
        .route(
            "/",
            get(|State(shop): State<Arc<Shop>>| page(shop, Page::Featured)),
        )
        .route(
            "/sidebar",
            get(|State(shop): State<Arc<Shop>>| page(shop, Page::Sidebar)),
        )
        .route(
            "/categories/{id}",
            get(|State(shop): State<Arc<Shop>>, Path(id): Path<u32>| {
                page(shop, Page::Category(id))
            }),
        )
        .route(
            "/products/{id}",
            get(|State(shop): State<Arc<Shop>>, Path(id): Path<u32>| page(shop, Page::Product(id))),
        )
        .route(
            "/products/{id}/price",
            get(|State(shop): State<Arc<Shop>>, Path(id): Path<u32>| page(shop, Page::Price(id))),
        )
        .route("/healthz", get(|| async { "ok" }));
    // Prices are changed at the shop whose cache has to learn of it, and only there.
    let router = if shop.cache.is_some() {
        router
            .route("/products/{id}/price", post(set_price))
            .route("/link", get(link))
    } else {
        router
    };
    router.with_state(shop)
}

async fn page(shop: Arc<Shop>, page: Page) -> Result<Response, ShopError> {
    let answer = shop.page(page).await?;
    let status = if answer.found {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    Ok((
        status,
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        answer.body,
    )
        .into_response())
}

/// What the cache has seen of the tier it shares with other processes, if it does.
async fn link(State(shop): State<Arc<Shop>>) -> Response {
    match shop.cache.as_ref().and_then(PageCache::link) {
        Some(link) => Json(link).into_response(),
        None => (StatusCode::NOT_FOUND, "this shop's cache is its own\n").into_response(),
    }
}

async fn set_price(
    State(shop): State<Arc<Shop>>,
    Path(id): Path<u32>,
    Json(price): Json<Price>,
) -> Result<Response, ShopError> {
    if price.price_cents <= 0 {
        return Ok((
            StatusCode::UNPROCESSABLE_ENTITY,
            "price_cents has to be above 0\n",
        )
            .into_response());
    }
    if !shop.set_price(id, price.price_cents).await? {
        return Ok((StatusCode::NOT_FOUND, "there is no such product\n").into_response());
    }
    Ok(Json(price).into_response())
}

impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{self}\n")).into_response()
    }
}
