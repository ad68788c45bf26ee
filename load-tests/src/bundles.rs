//! Bundles of flows for the gateway: what lies in them, and what they need from the management API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::contestant::API_KEY;
use crate::net;

/// The organisation and environment that everything is in.
const PLACE: &str = "/v1/organizations/load/environments/test";

/// A bundle that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bundle {
    /// One target, no policy.
    Pass,
    /// AssignMessage, VerifyAPIKey and SpikeArrest.
    Policies,
    /// Ten lines of JavaScript.
    Script,
}

/// Settings that a gateway with bundles needs besides the usual ones; empty ones are left to their defaults.
pub(crate) fn settings(admin: SocketAddr) -> [(&'static str, String); 5] {
    [
        ("database", String::new()),
        ("admin_listen", admin.to_string()),
        ("apigee_organization", "load".to_owned()),
        ("apigee_environments", "test".to_owned()),
        ("declarative_config", String::new()),
    ]
}

/// Deploys the bundle to a running gateway.
///
/// # Errors
/// When the gateway refuses something.
pub(crate) fn deploy(
    bundle: Bundle,
    gateway: &Path,
    environment: &[(String, String)],
    admin: SocketAddr,
    origin: SocketAddr,
    folder: &Path,
) -> Result<()> {
    let files = write(bundle, origin, folder)?;
    let server = format!(
        r#"{{"name":"origin","host":"{}","port":{}}}"#,
        origin.ip(),
        origin.port()
    );
    net::post(admin, &format!("{PLACE}/targetservers"), &server)?;
    let output = Command::new(gateway)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .args(["apigee", "deploy"])
        .arg(&files)
        .args(["--env", "test"])
        .output()
        .context("cannot run the gateway's command")?;
    if !output.status.success() {
        bail!("not deployed: {}", String::from_utf8_lossy(&output.stderr));
    }
    if bundle == Bundle::Policies {
        let organization = "/v1/organizations/load";
        let bodies = [
            (
                "apiproducts",
                r#"{"name":"P","displayName":"P","approvalType":"auto","environments":["test"]}"#
                    .to_owned(),
            ),
            (
                "developers",
                r#"{"email":"a@b.test","firstName":"A","lastName":"B","userName":"ab"}"#.to_owned(),
            ),
            (
                "developers/a@b.test/apps",
                r#"{"name":"app","apiProducts":["P"]}"#.to_owned(),
            ),
            (
                "developers/a@b.test/apps/app/keys/create",
                format!(r#"{{"consumerKey":"{API_KEY}","consumerSecret":"s"}}"#),
            ),
            (
                &format!("developers/a@b.test/apps/app/keys/{API_KEY}"),
                r#"{"apiProducts":["P"]}"#.to_owned(),
            ),
        ];
        for (path, body) in bodies {
            net::post(admin, &format!("{organization}/{path}"), &body)?;
        }
    }
    Ok(())
}

fn write(bundle: Bundle, origin: SocketAddr, folder: &Path) -> Result<PathBuf> {
    let root = folder.join("bundle");
    let steps = match bundle {
        Bundle::Pass => String::new(),
        Bundle::Policies => steps(&["Verify", "Spike", "Mark"]),
        Bundle::Script => steps(&["Script"]),
    };
    let streams = "<Properties><Property name='request.streaming.enabled'>true</Property>\
        <Property name='response.streaming.enabled'>true</Property></Properties>";
    let streams = if bundle == Bundle::Pass { streams } else { "" };
    let mut files = vec![
        ("load.xml", "<APIProxy name='load'/>".to_owned()),
        (
            "proxies/default.xml",
            format!(
                "<ProxyEndpoint name='default'>{steps}<HTTPProxyConnection><BasePath>/</BasePath>\
                 <VirtualHost>default</VirtualHost><VirtualHost>secure</VirtualHost>{streams}</HTTPProxyConnection>\
                 <RouteRule name='default'><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>"
            ),
        ),
        (
            "targets/default.xml",
            format!(
                "<TargetEndpoint name='default'><HTTPTargetConnection><URL>http://{origin}</URL>{streams}\
                 </HTTPTargetConnection></TargetEndpoint>"
            ),
        ),
    ];
    match bundle {
        Bundle::Pass => {}
        Bundle::Policies => files.extend([
            (
                "policies/Verify.xml",
                "<VerifyAPIKey name='Verify'><APIKey ref='request.header.apikey'/></VerifyAPIKey>".to_owned(),
            ),
            (
                "policies/Spike.xml",
                "<SpikeArrest name='Spike'><Identifier ref='messageid'/><Rate>1000ps</Rate></SpikeArrest>".to_owned(),
            ),
            (
                "policies/Mark.xml",
                "<AssignMessage name='Mark'><Set><Headers><Header name='X-Client'>{client_id} on {proxy.pathsuffix}</Header>\
                 </Headers></Set><Remove><Headers><Header name='apikey'/></Headers></Remove></AssignMessage>"
                    .to_owned(),
            ),
        ]),
        Bundle::Script => files.push((
            "policies/Script.xml",
            "<Javascript name='Script' timeLimit='200'><Source><![CDATA[\
             var verb = context.getVariable('request.verb');\n\
             var path = context.getVariable('proxy.pathsuffix');\n\
             var agent = request.headers['Host'];\n\
             var parts = path.split('/');\n\
             var last = parts[parts.length - 1];\n\
             var total = 0;\n\
             for (var at = 0; at < last.length; at += 1) { total += last.charCodeAt(at); }\n\
             if (verb === 'GET') { request.headers['X-Total'] = String(total); }\n\
             context.setVariable('load.agent', agent);\n\
             context.setVariable('load.total', total);\n\
             ]]></Source></Javascript>"
                .to_owned(),
        )),
    }
    for (path, text) in files {
        let file = root.join("apiproxy").join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, text)?;
    }
    Ok(root)
}

fn steps(names: &[&str]) -> String {
    let steps: String = names
        .iter()
        .map(|name| format!("<Step><Name>{name}</Name></Step>"))
        .collect();
    format!("<PreFlow><Request>{steps}</Request></PreFlow>")
}
