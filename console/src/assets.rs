//! Style sheet and script. Their addresses contain a hash of the content, so browsers keep them for ever.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use service_kit::http::not_found;
use sha2::{Digest, Sha256};

use crate::SharedState;

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "css", "text/css", include_str!("../assets/console.css"))
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript", include_str!("../assets/console.js"))
});
static ICON: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("icon", "svg", "image/svg+xml", include_str!("../assets/icon.svg"))
});

struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let hash = Sha256::digest(content);
        let name = format!(
            "{name}-{:02x}{:02x}{:02x}{:02x}.{extension}",
            hash[0], hash[1], hash[2], hash[3]
        );
        Self { name, media_type, content }
    }

    fn address(&self) -> String {
        format!("/console/assets/{}", self.name)
    }
}

pub(crate) fn style_address() -> String {
    STYLE.address()
}

pub(crate) fn script_address() -> String {
    SCRIPT.address()
}

pub(crate) fn icon_address() -> String {
    ICON.address()
}

pub(crate) fn routes() -> Router<SharedState> {
    Router::new().route("/console/assets/{name}", get(show_asset))
}

async fn show_asset(Path(name): Path<String>) -> Response {
    let assets = [&*STYLE, &*SCRIPT, &*ICON];
    let Some(asset) = assets.into_iter().find(|asset| asset.name == name) else {
        return not_found().await.into_response();
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, asset.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit of the style sheet and of the script: the first paint needs one of each.
    const MAX_BYTES: usize = 15_000;

    #[test]
    fn style_sheet_and_script_are_small() {
        for asset in [&*STYLE, &*SCRIPT] {
            let n_bytes = asset.content.len();
            assert!(n_bytes < MAX_BYTES, "{}: {n_bytes} bytes", asset.name);
        }
    }

    #[test]
    fn assets_load_nothing_from_other_hosts() {
        for asset in [&*STYLE, &*SCRIPT] {
            assert!(!asset.content.contains("://"), "{}", asset.name);
        }
    }
}
