//! The API for users; its shapes are in [`types`](super::types).

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use federation_core::api::ApiError;
use federation_core::encoding::decode;
use federation_lightning::{ContractId, PaymentHash};
use lightning_invoice::Bolt11Invoice;

use super::body::{Body, Wait};
use super::types::{
    InfoResponse, InvoiceRequest, InvoiceResponse, InvoiceStatus, MAX_CONTRACT, PayRequest, PayResponse,
};
use crate::GatewayError;
use crate::swap::Swaps;
use crate::swap::incoming::{Incoming, IncomingState};
use crate::swap::invoice::InvoiceOrder;
use crate::swap::outgoing::{Outgoing, OutgoingState};
use crate::swap::pay::PayOrder;

/// The longest invoice that is read, in bytes.
const MAX_INVOICE: usize = 7089;

/// All endpoints.
pub(crate) fn public_router(swaps: Arc<Swaps>) -> Router {
    let router = Router::new()
        .route("/v1/info", get(info))
        .route("/v1/pay", post(pay))
        .route("/v1/pay/{contract_id}", get(payment))
        .route("/v1/invoices", post(invoice))
        .route("/v1/invoices/{payment_hash}", get(invoice_status))
        .with_state(swaps);
    super::guarded(router)
}

async fn info(State(swaps): State<Arc<Swaps>>) -> Result<Json<InfoResponse>, GatewayError> {
    let (node, fees) = (swaps.node.info().await?, swaps.fees().await?);
    Ok(Json(InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        gateway_key: swaps.key(),
        node_id: node.node_id,
        alias: node.alias,
        network: node.network,
        block_height: node.block_height,
        send_fees: fees.send(),
        receive_fees: fees.receive(),
        min: swaps.limits().min,
        max: swaps.limits().max,
        draining: swaps.is_draining(),
        federations: swaps.federations().iter().map(|federation| federation.id()).collect(),
    }))
}

async fn pay(
    State(swaps): State<Arc<Swaps>>,
    Wait(wait): Wait,
    Body(request): Body<PayRequest>,
) -> Result<Json<PayResponse>, GatewayError> {
    let contract = read_contract(&request.contract)?;
    let order =
        PayOrder { federation: request.federation_id, contract, invoice: read_invoice(&request.invoice)? };
    let id = order.contract.id(order.federation);
    if id != request.contract_id {
        return Err(GatewayError::refused("wrong_contract", "the contract has another id"));
    }
    // In a task of its own: a client that hangs up must not stop it halfway.
    let begun = tokio::spawn({
        let swaps = Arc::clone(&swaps);
        async move { swaps.pay(order).await }
    });
    let swap = begun.await.map_err(|error| ApiError::new(500, "internal", error.to_string()))??;
    let swap = match swaps.wait_outgoing(id, wait).await? {
        Some(later) => later,
        None => swap,
    };
    Ok(Json(pay_response(&swap)?))
}

async fn payment(
    State(swaps): State<Arc<Swaps>>,
    Path(id): Path<String>,
    Wait(wait): Wait,
) -> Result<Json<PayResponse>, GatewayError> {
    let id: ContractId = read_id(&id)?;
    let swap = swaps.wait_outgoing(id, wait).await?.ok_or_else(unknown_swap)?;
    Ok(Json(pay_response(&swap)?))
}

fn pay_response(swap: &Outgoing) -> Result<PayResponse, GatewayError> {
    Ok(match &swap.state {
        OutgoingState::Started(_) | OutgoingState::Inside(_) => PayResponse::Pending,
        OutgoingState::Paid { preimage, .. }
        | OutgoingState::Done { preimage }
        | OutgoingState::Lost { preimage } => PayResponse::Succeeded { preimage: *preimage },
        OutgoingState::Cancelled { reason, cancellation, .. } => {
            PayResponse::Failed { reason: reason.clone(), cancellation: cancellation.0 }
        }
        OutgoingState::Lapsed => {
            let detail = "the contract expired and was refunded; whether the payment was made is not known";
            return Err(ApiError::new(410, "lapsed", detail).into());
        }
    })
}

async fn invoice(
    State(swaps): State<Arc<Swaps>>,
    Body(request): Body<InvoiceRequest>,
) -> Result<Json<InvoiceResponse>, GatewayError> {
    let order = InvoiceOrder {
        federation: request.federation_id,
        contract: read_contract(&request.contract)?,
        amount: request.amount_msat,
        description: request.description,
    };
    let invoice = tokio::spawn(async move { swaps.invoice(order).await })
        .await
        .map_err(|error| ApiError::new(500, "internal", error.to_string()))??;
    Ok(Json(InvoiceResponse { invoice }))
}

async fn invoice_status(
    State(swaps): State<Arc<Swaps>>,
    Path(hash): Path<String>,
    Wait(wait): Wait,
) -> Result<Json<InvoiceStatus>, GatewayError> {
    let hash: PaymentHash = read_id(&hash)?;
    let swap = swaps.wait_incoming(hash.0, wait).await?.ok_or_else(unknown_swap)?;
    Ok(Json(status_of(swap)))
}

fn status_of(swap: Incoming) -> InvoiceStatus {
    match swap.state {
        IncomingState::Offered | IncomingState::Waiting => InvoiceStatus::Waiting,
        IncomingState::Funding(_) | IncomingState::Funded(_) => InvoiceStatus::Funding,
        IncomingState::Settling { .. } | IncomingState::Done { .. } | IncomingState::Lost { .. } => {
            InvoiceStatus::Paid
        }
        IncomingState::Invalid => InvoiceStatus::Failed {
            code: "wrong_preimage".to_owned(),
            reason: "the preimage that the payee encrypted was wrong".to_owned(),
        },
        IncomingState::Refusing { code, reason } | IncomingState::Failed { code, reason } => {
            InvoiceStatus::Failed { code, reason }
        }
    }
}

fn unknown_swap() -> GatewayError {
    ApiError::not_found("unknown_swap", "this gateway was never asked for that").into()
}

fn read_contract<T: borsh::BorshDeserialize>(bytes: &[u8]) -> Result<T, GatewayError> {
    decode(bytes, MAX_CONTRACT).map_err(|error| {
        ApiError::bad_request("bad_contract", format!("the contract can't be read: {error}")).into()
    })
}

fn read_invoice(text: &str) -> Result<Bolt11Invoice, GatewayError> {
    let bad = |reason: String| {
        GatewayError::from(ApiError::bad_request("bad_invoice", format!("no BOLT 11 invoice: {reason}")))
    };
    if text.len() > MAX_INVOICE {
        return Err(bad("it is too long".to_owned()));
    }
    text.parse().map_err(|error| bad(format!("{error}")))
}

fn read_id<T: FromStr>(text: &str) -> Result<T, GatewayError> {
    text.parse().map_err(|_| ApiError::bad_request("bad_id", "an id is 64 hex digits").into())
}
