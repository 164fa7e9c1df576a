//! Reading: get and list.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::Api;
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::selectors::{FieldSelector, LabelSelector};

/// What a list or watch selects.
#[derive(Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    /// At most so many objects; 0 is all.
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    /// Exactly this revision, where asked for.
    pub(crate) exact: Option<u64>,
}

impl ListOptions {
    pub(crate) fn selects(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) items: Vec<Arc<Value>>,
    pub(crate) revision: u64,
    /// The token of the next page; "" on the last.
    pub(crate) next: String,
    /// How many objects follow, when that is known.
    pub(crate) remaining: Option<usize>,
}

impl Api {
    /// One object, as stored.
    pub(crate) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, ApiError> {
        self.store.get(&kind.storage, namespace, name).ok_or_else(|| ApiError::not_found(kind, name))
    }

    /// All objects of a built-in kind, for controllers.
    pub(crate) fn all(&self, storage: &str) -> Vec<Arc<Value>> {
        self.store.list(storage, None).0
    }

    /// One page of the objects of a kind, in the order of namespace and name.
    ///
    /// The pages of one list show one revision; when that lies too far back, the token is refused
    /// with 410 and the client lists anew.
    pub(crate) fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Listing, ApiError> {
        let token = decode_token(&options.continue_token)?;
        let exact = token.as_ref().map(|t| t.revision).or(options.exact);
        let (objects, revision) = match exact {
            None => self.store.list(&kind.storage, namespace),
            Some(revision) => {
                let current = self.store.revision();
                if revision > current {
                    return Err(ApiError::from_future(revision, current));
                }
                let objects = self
                    .store
                    .list_at(&kind.storage, namespace, revision)
                    .map_err(|c| ApiError::expired(revision, c.oldest))?;
                (objects, revision)
            }
        };
        let mut items: Vec<Arc<Value>> = objects
            .into_iter()
            .filter(|o| {
                token.as_ref().is_none_or(|t| (object::namespace(o), object::name(o)) > (&t.namespace, &t.name))
            })
            .filter(|o| options.selects(o))
            .collect();
        let (mut next, mut remaining) = (String::new(), None);
        if options.limit > 0 && items.len() > options.limit {
            let rest = items.len() - options.limit;
            items.truncate(options.limit);
            if let Some(last) = items.last() {
                next = encode_token(revision, object::namespace(last), object::name(last));
            }
            // With a selector the count is left out, as the API conventions ask.
            remaining = options.labels.is_empty().then_some(rest);
        }
        Ok(Listing { items, revision, next, remaining })
    }
}

struct Token {
    revision: u64,
    namespace: String,
    name: String,
}

fn encode_token(revision: u64, namespace: &str, name: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!([revision, namespace, name]).to_string())
}

fn decode_token(token: &str) -> Result<Option<Token>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<(u64, String, String)>(&bytes).ok())
        .map(|(revision, namespace, name)| Some(Token { revision, namespace, name }))
        .ok_or_else(|| ApiError::bad_request("continue key is not valid; start the list anew without it"))
}
