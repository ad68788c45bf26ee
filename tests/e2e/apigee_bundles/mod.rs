//! Whole applications of bundles, as a team would bring them: twenty policies and more each, deployed through the
//! management API and held to what their documents say. The files lie in `tests/e2e/bundles`.

mod aggregator;
mod canary_shop;
mod governed_api;
mod mobile_api;
mod partner_api;
mod public_api;
mod soap_facade;
mod tenant_router;
mod token_server;
mod web_backend;
