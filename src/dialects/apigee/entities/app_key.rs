//! Keys of apps: consumer key and secret, and the products that they open.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Attribute, Entity, Kind};

/// A key of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppKey {
    pub consumer_key: String,
    pub consumer_secret: String,
    pub developer_id: String,
    /// The name of the app.
    pub app: String,
    /// `approved` or `revoked`.
    pub status: String,
    pub api_products: Vec<ProductApproval>,
    pub scopes: Vec<String>,
    pub attributes: Vec<Attribute>,
    /// Milliseconds since 1970.
    pub issued_at: i64,
    /// Milliseconds since 1970; -1: never.
    pub expires_at: i64,
}

/// A product that a key may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductApproval {
    pub apiproduct: String,
    /// `approved`, `revoked` or `pending`.
    pub status: String,
}

impl Entity for AppKey {
    const KIND: Kind = Kind::AppKey;
}

impl AppKey {
    /// The answer.
    pub fn to_json(&self) -> Value {
        json!({
            "apiProducts": self.api_products,
            "attributes": self.attributes,
            "consumerKey": self.consumer_key,
            "consumerSecret": self.consumer_secret,
            "expiresAt": self.expires_at,
            "issuedAt": self.issued_at,
            "scopes": self.scopes,
            "status": self.status,
        })
    }

    /// Whether it is honoured at a moment, as far as it alone decides.
    pub fn is_good(&self, now_ms: i64) -> bool {
        self.status == "approved" && (self.expires_at < 0 || now_ms < self.expires_at)
    }
}
