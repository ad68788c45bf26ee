//! The local Consul agent, and what the gateway is in the mesh.

use super::key::{choice, keys};
use super::value::Seconds;

keys! {
    /// The local Consul agent, and what the gateway is in the mesh.
    pub struct ConsulSettings {
        /// The agent: `HOST:PORT`, `http://…`, `https://…` or `unix:///PATH`. Without it `CONSUL_HTTP_ADDR` counts, else
        /// `127.0.0.1:8500`. It is asked only when something refers to Consul.
        consul_http_addr: Option<String> = "";
        /// The ACL token. Without it that of `consul_token_file`, else of `CONSUL_HTTP_TOKEN_FILE` or
        /// `CONSUL_HTTP_TOKEN`.
        consul_token: Option<String> = "" => secret();
        /// A file that holds the ACL token; it is read again when the agent refuses the token.
        consul_token_file: Option<std::path::PathBuf> = "";
        /// `user:password` for a proxy in front of the agent. Without it `CONSUL_HTTP_AUTH`.
        consul_http_auth: Option<String> = "" => secret();
        /// Speak TLS to the agent. Without it `CONSUL_HTTP_SSL`, else as `consul_http_addr` says.
        consul_ssl: Option<bool> = "";
        /// Verify the agent's certificate. Without it `CONSUL_HTTP_SSL_VERIFY`, else `on`.
        consul_ssl_verify: Option<bool> = "";
        /// PEM file of the authorities of the agent's certificate. Without it `CONSUL_CACERT`.
        consul_cacert: Option<std::path::PathBuf> = "";
        /// Folder of such files. Without it `CONSUL_CAPATH`.
        consul_capath: Option<std::path::PathBuf> = "";
        /// PEM file of the certificate that is shown to the agent. Without it `CONSUL_CLIENT_CERT`.
        consul_client_cert: Option<std::path::PathBuf> = "";
        /// PEM file of its key. Without it `CONSUL_CLIENT_KEY`.
        consul_client_key: Option<std::path::PathBuf> = "";
        /// The name in the agent's certificate. Without it `CONSUL_TLS_SERVER_NAME`, else the host of the address.
        consul_tls_server_name: Option<String> = "";
        /// Namespace of the questions (Enterprise). Without it `CONSUL_NAMESPACE`.
        consul_namespace: Option<String> = "";
        /// Partition of the questions (Enterprise). Without it `CONSUL_PARTITION`.
        consul_partition: Option<String> = "";
        /// The service that the gateway itself is in the mesh: the name on its certificates and in intentions.
        consul_service: Option<String> = "";
        /// The name under which mesh gateways are registered, for upstreams in other datacenters whose mesh gateway mode
        /// is `local` or `remote`.
        consul_mesh_gateway: String = "mesh-gateway";
        /// Who says whether a caller may connect to a listener of protocol `tcp`: the agent, asked for each connection,
        /// or the intentions, which a watch keeps here. Listeners with requests always use the intentions.
        consul_authorize: Authorize = "agent";
        /// How long the last word of the agent about a caller still counts while the agent cannot be asked. 0: not at
        /// all, the caller is denied.
        consul_authorize_stale_ttl: Seconds = "0";
    }
}

choice! {
    /// Who decides about connections.
    pub enum Authorize {
        /// The agent, asked for each connection.
        Agent = "agent",
        /// The intentions, evaluated here.
        Intentions = "intentions",
    }
}
