//! ServerFeatures.GetSupportedMethods: the methods that the node serves.

use crate::{
    rpc::methods::METHODS,
    wire::event_store::client::server_features::{SupportedMethod, SupportedMethods},
};

/// Version that the node reports. Clients choose features by it.
pub const SERVER_VERSION: &str = "24.6.0";

pub(crate) fn supported_methods() -> SupportedMethods {
    let methods = METHODS.iter().map(|method| SupportedMethod {
        method_name: method.name.to_ascii_lowercase(),
        service_name: method.service.to_ascii_lowercase(),
        features: method.features.iter().map(|feature| (*feature).to_owned()).collect(),
    });
    SupportedMethods {
        methods: methods.collect(),
        event_store_server_version: SERVER_VERSION.to_owned(),
    }
}
