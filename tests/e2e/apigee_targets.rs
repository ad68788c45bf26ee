//! Where bundles lead: TLS towards targets and from clients, balancers and what they tell, limits of time.

use serde_json::json;

use crate::harness::{Authority, NginxOrigin, Organization, Origin, Reply, eventually, zip_files};

/// A proxy at `/NAME` with one target endpoint; `inside` stands in front of the connection, `flows` in the proxy endpoint.
struct Proxy<'a> {
    name: &'a str,
    host: &'a str,
    flows: &'a str,
    target: &'a str,
    policies: &'a [(&'a str, &'a str)],
}

impl Proxy<'_> {
    fn zip(&self) -> Vec<u8> {
        let endpoint = format!(
            "<ProxyEndpoint name='default'>{}<HTTPProxyConnection><BasePath>/{}</BasePath><VirtualHost>{}</VirtualHost>\
             </HTTPProxyConnection><RouteRule name='default'><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>",
            self.flows, self.name, self.host
        );
        let target = format!(
            "<TargetEndpoint name='default'>{}</TargetEndpoint>",
            self.target
        );
        let base = format!("<APIProxy name='{}'/>", self.name);
        let mut files = vec![
            ("apiproxy/base.xml".to_owned(), base),
            ("apiproxy/proxies/default.xml".to_owned(), endpoint),
            ("apiproxy/targets/default.xml".to_owned(), target),
        ];
        for (name, text) in self.policies {
            files.push((format!("apiproxy/policies/{name}.xml"), (*text).to_owned()));
        }
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_bytes()))
            .collect();
        zip_files(&files)
    }

    #[track_caller]
    fn deploy(&self, organization: &Organization) {
        let imported = organization.import("apis", self.name, self.zip());
        let revision = imported.expect_status(201).json()["revision"].clone();
        let revision = revision.as_str().expect("a revision");
        organization
            .deploy_revision("apis", self.name, revision)
            .expect_status(200);
    }
}

/// Sets a header of the response from a template.
fn header(policy: &str, name: &str, value: &str) -> String {
    format!(
        "<AssignMessage name='{policy}'><Set><Headers><Header name='{name}'>{value}</Header></Headers></Set>\
         <IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables></AssignMessage>"
    )
}

#[test]
fn a_target_sees_the_certificate_that_a_reference_leads_to() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let nginx = NginxOrigin::verifying_clients(
        &authority.issue(&["backend.test", "127.0.0.1"]),
        &clients.pem(),
    );
    let organization = Organization::new();
    for name in ["first", "second"] {
        let pair = clients.issue(&[&format!("{name}.client")]);
        organization.keystore(
            &format!("{name}-store"),
            &[("own", &pair.certificate, Some(&pair.key))],
        );
    }
    organization.keystore("trusted", &[("backend-ca", &authority.pem(), None)]);
    organization.keystore("strangers", &[("other-ca", &clients.pem(), None)]);
    let reference =
        |store: &str| json!({"name": "keystoreref", "refers": store, "resourceType": "KeyStore"});
    organization.add("references", reference("first-store"));
    let target = |trust: &str, shows: &str| {
        format!(
            "<HTTPTargetConnection><URL>https://{}/from</URL><SSLInfo><Enabled>true</Enabled>\
             <ClientAuthEnabled>{shows}</ClientAuthEnabled><KeyStore>ref://keystoreref</KeyStore><KeyAlias>own</KeyAlias>\
             <TrustStore>{trust}</TrustStore></SSLInfo></HTTPTargetConnection>",
            nginx.address
        )
    };
    let deploy = |name: &str, target: &str| {
        let proxy = Proxy {
            name,
            host: "default",
            flows: "",
            target,
            policies: &[],
        };
        proxy.deploy(&organization);
    };
    deploy("mutual", &target("trusted", "true"));
    deploy("anonymous", &target("trusted", "false"));
    deploy("distrustful", &target("strangers", "true"));
    let gateway = &organization.gateway;
    let answer = gateway.get("/mutual/here").send().expect_status(200);
    assert_eq!(answer.text(), "CN=first.client /from/here");
    let refused = gateway.get("/anonymous").send().expect_status(400);
    assert!(
        refused.text().contains("No required SSL certificate"),
        "{}",
        refused.text()
    );
    let unverified = gateway.get("/distrustful").send().expect_status(503);
    assert_eq!(
        unverified.json()["fault"]["detail"]["errorcode"],
        "messaging.adaptors.http.flow.SslHandshakeFailed"
    );
    organization.put("references/keystoreref", reference("second-store"));
    let answer = gateway.get("/mutual/here").send().expect_status(200);
    assert_eq!(answer.text(), "CN=second.client /from/here");
    // What is referred to stays as long as something needs it.
    let admin = gateway.admin();
    let path = "/v1/o/acme/e/test/keystores/second-store";
    assert_eq!(admin.request("DELETE", path).send().status, 400);
}

#[test]
fn a_virtual_host_demands_certificates_of_its_clients() {
    let (clients, strangers) = (Authority::new(), Authority::new());
    let organization = Organization::new();
    let own = Authority::new().issue(&["guarded.test"]);
    organization.keystore("own", &[("k", &own.certificate, Some(&own.key))]);
    organization.keystore("partners", &[("ca", &clients.pem(), None)]);
    let gateway = &organization.gateway;
    let host = |name: &str, alias: &str, client_auth: bool| {
        json!({"name": name, "hostAliases": [alias], "port": gateway.tls().port().to_string(),
            "sSLInfo": {"enabled": true, "clientAuthEnabled": client_auth, "keyStore": "own", "keyAlias": "k", "trustStore": "partners"}})
    };
    organization.add("virtualhosts", host("guarded", "guarded.test", true));
    organization.add("virtualhosts", host("open", "open.test", false));
    let tell = header("Tell", "X-Caller", "{client.cn}|{tls.client.s.dn}");
    let flows = "<PreFlow><Response><Step><Name>Tell</Name></Step></Response></PreFlow>";
    let origin = Origin::echo();
    let target = format!(
        "<HTTPTargetConnection><URL>{}</URL></HTTPTargetConnection>",
        origin.url()
    );
    for host in ["guarded", "open"] {
        let policies: &[(&str, &str)] = &[("Tell", &tell)];
        let proxy = Proxy {
            name: host,
            host,
            flows,
            target: &target,
            policies,
        };
        proxy.deploy(&organization);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let ask = |host: &str, shown: Option<&Authority>| {
        let mut arguments = vec![
            "--insecure".to_owned(),
            "--include".to_owned(),
            "--resolve".to_owned(),
        ];
        arguments.push(format!("{host}.test:{}:127.0.0.1", gateway.tls().port()));
        if let Some(authority) = shown {
            let pair = authority.issue(&["ada"]);
            for (option, name, text) in [
                ("--cert", "c.pem", &pair.certificate),
                ("--key", "k.pem", &pair.key),
            ] {
                let file = folder.path().join(name);
                std::fs::write(&file, text).expect("a file");
                arguments.push(option.to_owned());
                arguments.push(file.display().to_string());
            }
        }
        arguments.push(format!(
            "https://{host}.test:{}/{host}",
            gateway.tls().port()
        ));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        crate::harness::curl(&arguments).to_ascii_lowercase()
    };
    let known = ask("guarded", Some(&clients));
    assert!(known.contains(" 200"), "{known}");
    assert!(known.contains("x-caller: ada|cn=ada"), "{known}");
    let nobody = ask("guarded", None);
    assert!(
        nobody.contains(" 400") && nobody.contains("no required ssl certificate was sent"),
        "{nobody}"
    );
    let stranger = ask("guarded", Some(&strangers));
    assert!(
        stranger.contains(" 400") && stranger.contains("the ssl certificate error"),
        "{stranger}"
    );
    let open = ask("open", Some(&clients));
    assert!(
        open.contains(" 200") && open.contains("x-caller: |"),
        "{open}"
    );
    assert_eq!(
        origin.received().len(),
        2,
        "whoever was refused went no further"
    );
    // What a listener cannot do for one virtual host alone is refused.
    let admin = gateway.admin();
    let mut bad = host("bad", "bad.test", true);
    bad["sSLInfo"]["protocols"] = json!(["TLSv1.2"]);
    let refused = admin
        .request("POST", "/v1/o/acme/e/test/virtualhosts")
        .json(&bad)
        .send();
    assert!(
        refused
            .expect_status(400)
            .message()
            .contains("ssl_protocols")
    );
    let mut bad = host("bad", "bad.test", true);
    bad["sSLInfo"]["trustStore"] = json!(null);
    let refused = admin
        .request("POST", "/v1/o/acme/e/test/virtualhosts")
        .json(&bad)
        .send();
    assert!(refused.expect_status(400).message().contains("trustStore"));
}

#[test]
fn variables_tell_which_server_has_answered() {
    let good = Origin::answering(|_| Reply::ok("good"));
    let spare = Origin::answering(|_| Reply::ok("spare"));
    let organization = Organization::new();
    organization.target_server("good", &good);
    organization.target_server("spare", &spare);
    let dead = Origin::refused();
    organization.add(
        "targetservers",
        json!({"name": "dead", "host": "127.0.0.1", "port": dead.port(), "isEnabled": true}),
    );
    let tell = header(
        "Tell",
        "X-Servers",
        "{loadbalancing.targetserver}|{loadbalancing.failedservers}|{loadbalancing.isfallback}",
    );
    let flows = "<PreFlow><Response><Step><Name>Tell</Name></Step></Response></PreFlow>\
        <DefaultFaultRule name='d'><AlwaysEnforce>true</AlwaysEnforce><Step><Name>Tell</Name></Step></DefaultFaultRule>";
    let deploy = |name: &str, servers: &str| {
        let target = format!(
            "<HTTPTargetConnection><LoadBalancer>{servers}</LoadBalancer></HTTPTargetConnection>"
        );
        let policies: &[(&str, &str)] = &[("Tell", &tell)];
        Proxy {
            name,
            host: "default",
            flows,
            target: &target,
            policies,
        }
        .deploy(&organization);
    };
    deploy("one", "<Server name='good'/>");
    deploy("retried", "<Server name='dead'/><Server name='good'/>");
    deploy(
        "all-dead",
        "<Server name='dead'/><RetryEnabled>false</RetryEnabled>",
    );
    deploy(
        "last-resort",
        "<Server name='dead'/><Server name='spare'><IsFallback>true</IsFallback></Server><MaxFailures>1</MaxFailures>",
    );
    let gateway = &organization.gateway;
    let servers = |path: &str| {
        let answer = gateway.get(path).send();
        answer.header("X-Servers").unwrap_or_default().to_owned()
    };
    assert_eq!(servers("/one"), "good||false");
    // The servers take turns: one of two requests begins with the dead one.
    let seen: Vec<String> = (0..2).map(|_| servers("/retried")).collect();
    assert!(seen.contains(&"good|dead|false".to_owned()), "{seen:?}");
    assert_eq!(servers("/all-dead"), "dead|dead|false");
    let fallback = eventually("the fallback serves", || {
        let seen = servers("/last-resort");
        seen.starts_with("spare").then_some(seen)
    });
    assert!(fallback.ends_with("|true"), "{fallback}");
}

#[test]
fn a_policy_may_say_which_name_a_target_must_have() {
    let authority = Authority::new();
    let pair = authority.issue(&["inner.backend.test"]);
    let origin = Origin::answering_tls(&pair, Reply::echo);
    let organization = Organization::new();
    organization.keystore("trusted", &[("ca", &authority.pem(), None)]);
    let expect = "<AssignMessage name='Expect'><AssignVariable><Name>target.expectedcn</Name>\
        <Ref>request.queryparam.name</Ref></AssignVariable><IgnoreUnresolvedVariables>true</IgnoreUnresolvedVariables></AssignMessage>";
    let target = format!(
        "<PreFlow><Request><Step><Name>Expect</Name><Condition>request.queryparam.name != null</Condition></Step></Request></PreFlow>\
         <HTTPTargetConnection><URL>https://{}</URL><SSLInfo><Enabled>true</Enabled><TrustStore>trusted</TrustStore>\
         </SSLInfo></HTTPTargetConnection>",
        origin.address
    );
    let proxy = Proxy {
        name: "named",
        host: "default",
        flows: "",
        target: &target,
        policies: &[("Expect", expect)],
    };
    proxy.deploy(&organization);
    let gateway = &organization.gateway;
    for _ in 0..2 {
        gateway.get("/named").send().expect_status(503);
        gateway
            .get("/named?name=inner.backend.test")
            .send()
            .expect_status(200);
        gateway
            .get("/named?name=other.test")
            .send()
            .expect_status(503);
    }
}

#[test]
fn an_api_has_so_much_time_and_no_more() {
    // It says nothing for as long as the client waits.
    let origin = Origin::conversing(|stream, _| {
        let mut stream = stream;
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let organization = Organization::new();
    let target = format!(
        "<HTTPTargetConnection><URL>{}</URL></HTTPTargetConnection>",
        origin.url()
    );
    let limited = |name: &str, flows: &str, policies: &[(&str, &str)]| {
        let endpoint = format!(
            "<ProxyEndpoint name='default'>{flows}<HTTPProxyConnection><BasePath>/{name}</BasePath><VirtualHost>default</VirtualHost>\
             <Properties><Property name='api.timeout'>300</Property></Properties></HTTPProxyConnection>\
             <RouteRule name='default'><TargetEndpoint>default</TargetEndpoint></RouteRule></ProxyEndpoint>"
        );
        let target = format!("<TargetEndpoint name='default'>{target}</TargetEndpoint>");
        let base = format!("<APIProxy name='{name}'/>");
        let mut files = vec![
            ("apiproxy/base.xml".to_owned(), base),
            ("apiproxy/proxies/default.xml".to_owned(), endpoint),
            ("apiproxy/targets/default.xml".to_owned(), target),
        ];
        for (policy, text) in policies {
            files.push((
                format!("apiproxy/policies/{policy}.xml"),
                (*text).to_owned(),
            ));
        }
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_bytes()))
            .collect();
        organization
            .import("apis", name, zip_files(&files))
            .expect_status(201);
        organization
            .deploy_revision("apis", name, "1")
            .expect_status(200);
    };
    limited("silent", "", &[]);
    let ask = format!(
        "<ServiceCallout name='Ask'><Request variable='q'/><Response>a</Response><HTTPTargetConnection><URL>{}</URL></HTTPTargetConnection></ServiceCallout>",
        origin.url()
    );
    let pre = "<PreFlow><Request><Step><Name>Ask</Name></Step></Request></PreFlow>";
    limited("asking", pre, &[("Ask", &ask)]);
    let gateway = &organization.gateway;
    // Without the limit they would wait for 55 seconds, longer than the client does.
    let silent = gateway.get("/silent").send().expect_status(504);
    assert_eq!(
        silent.json()["fault"]["detail"]["errorcode"],
        "messaging.adaptors.http.flow.GatewayTimeout"
    );
    let asking = gateway.get("/asking").send();
    assert!(asking.status >= 500, "{}", asking.text());
}
