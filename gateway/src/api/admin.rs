//! The API for operators, on a loopback address, behind a bearer token.
//!
//! | endpoint | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`GatewayStatus`](crate::GatewayStatus) |
//! | `GET /v1/balance` | | `{"balance_msat": …}` |
//! | `GET /v1/federations` | | list of [`FederationSummary`](crate::FederationSummary) |
//! | `POST /v1/federations` | `{"invite": …}` | [`FederationSummary`](crate::FederationSummary) |
//! | `DELETE /v1/federations/{id}` | | `{}` |
//! | `POST /v1/deposit` | `{"federation_id": …}` | [`Deposit`](crate::Deposit) |
//! | `POST /v1/withdraw` | `{"federation_id", "address", "amount_sat"?, "max_fee_sat"?}`; no amount: all | [`Withdrawal`](crate::Withdrawal) |
//! | `POST /v1/ecash/receive` | `{"ecash": …}` | `{"amount_msat": …}` |
//! | `POST /v1/ecash/send` | `{"federation_id", "amount_msat"}` | `{"ecash": …}` |
//! | `POST /v1/fees` | [`Fees`] | `{}` |
//! | `POST /v1/drain` | `{"draining": true}` | `{}` |
//! | `POST /v1/node/address` | | `{"address": …}`: the node's own on-chain wallet |
//! | `POST /v1/node/send` | [`OnchainSendRequest`] | `{"txid": …}` |

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router, middleware};
use federation_core::api::ApiError;
use federation_core::{Amount, FederationId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::token::{Token, check_token};
use crate::GatewayError;
use crate::config::Fees;
use crate::gateway::{FederationSummary, Gateway, GatewayStatus};
use crate::liquidity::{Deposit, Withdrawal};
use crate::node::OnchainSendRequest;

type Answer<T> = Result<Json<T>, GatewayError>;
type Gate = State<Arc<Gateway>>;

/// All endpoints, and `extra` ones of the node.
pub(crate) fn admin_router(gateway: Arc<Gateway>, extra: Router, token: Token) -> Router {
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/balance", get(balance))
        .route("/v1/federations", get(federations).post(connect))
        .route("/v1/federations/{id}", delete(leave))
        .route("/v1/deposit", post(deposit))
        .route("/v1/withdraw", post(withdraw))
        .route("/v1/ecash/receive", post(receive))
        .route("/v1/ecash/send", post(send))
        .route("/v1/fees", post(fees))
        .route("/v1/drain", post(drain))
        .route("/v1/node/address", post(node_address))
        .route("/v1/node/send", post(node_send))
        .with_state(gateway)
        .merge(extra);
    // Outermost: who has no token learns nothing, not even what exists.
    super::guarded(router).layer(middleware::from_fn_with_state(token, check_token))
}

async fn status(State(gateway): Gate) -> Answer<GatewayStatus> {
    Ok(Json(gateway.status().await?))
}

async fn balance(State(gateway): Gate) -> Answer<Value> {
    Ok(Json(json!({ "balance_msat": gateway.balance().await? })))
}

async fn federations(State(gateway): Gate) -> Answer<Vec<FederationSummary>> {
    Ok(Json(gateway.federations().await?))
}

#[derive(Deserialize)]
struct Connect {
    invite: String,
}

async fn connect(State(gateway): Gate, Body(body): Body<Connect>) -> Answer<FederationSummary> {
    Ok(Json(gateway.connect(&body.invite).await?))
}

async fn leave(State(gateway): Gate, Path(id): Path<String>) -> Answer<Value> {
    let id = id.parse().map_err(|_| ApiError::bad_request("bad_id", "an id is 64 hex digits"))?;
    gateway.leave(id).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct In {
    federation_id: FederationId,
}

async fn deposit(State(gateway): Gate, Body(body): Body<In>) -> Answer<Deposit> {
    Ok(Json(gateway.deposit(body.federation_id).await?))
}

#[derive(Deserialize)]
struct Withdraw {
    federation_id: FederationId,
    address: String,
    amount_sat: Option<u64>,
    max_fee_sat: Option<u64>,
}

async fn withdraw(State(gateway): Gate, Body(body): Body<Withdraw>) -> Answer<Withdrawal> {
    let Withdraw { federation_id, address, amount_sat, max_fee_sat } = body;
    Ok(Json(gateway.withdraw(federation_id, &address, amount_sat, max_fee_sat).await?))
}

#[derive(Deserialize)]
struct Receive {
    ecash: String,
}

async fn receive(State(gateway): Gate, Body(body): Body<Receive>) -> Answer<Value> {
    Ok(Json(json!({ "amount_msat": gateway.receive_ecash(&body.ecash).await? })))
}

#[derive(Deserialize)]
struct Send {
    federation_id: FederationId,
    amount_msat: Amount,
}

async fn send(State(gateway): Gate, Body(body): Body<Send>) -> Answer<Value> {
    Ok(Json(json!({ "ecash": gateway.send_ecash(body.federation_id, body.amount_msat).await? })))
}

async fn fees(State(gateway): Gate, Body(fees): Body<Fees>) -> Answer<Value> {
    gateway.set_fees(fees).await?;
    Ok(Json(json!({})))
}

#[derive(Deserialize)]
struct Drain {
    draining: bool,
}

async fn drain(State(gateway): Gate, Body(body): Body<Drain>) -> Answer<Value> {
    gateway.drain(body.draining);
    Ok(Json(json!({})))
}

async fn node_address(State(gateway): Gate) -> Answer<Value> {
    Ok(Json(json!({ "address": gateway.node().onchain_address().await?.to_string() })))
}

async fn node_send(State(gateway): Gate, Body(request): Body<OnchainSendRequest>) -> Answer<Value> {
    Ok(Json(json!({ "txid": gateway.node().onchain_send(request).await? })))
}
