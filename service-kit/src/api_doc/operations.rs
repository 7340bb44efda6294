//! The operations of a path in an API description.

use axum::http::Method;
use utoipa::openapi::PathItem;
use utoipa::openapi::path::Operation;

/// Returns the operations of a path, each with its method.
pub(crate) fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let PathItem { get, post, put, delete, patch, .. } = item;
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
    let all = methods.into_iter().zip([get, post, put, delete, patch]);
    all.filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

pub(super) fn operations_mut(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, post, put, delete, patch, .. } = item;
    [get, post, put, delete, patch].into_iter().flatten()
}
