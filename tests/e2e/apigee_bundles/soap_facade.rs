//! `soap-facade`: JSON outside, SOAP inside, faults translated.

use serde_json::json;

use crate::harness::{Organization, Origin, Reply};

const SOAP: &str = "xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"";

fn order_service() -> Origin {
    Origin::answering(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let envelope = |status: u16, inside: &str| {
            let text = format!(
                "<?xml version=\"1.0\"?>\n<soapenv:Envelope {SOAP}><soapenv:Body>{inside}</soapenv:Body></soapenv:Envelope>"
            );
            Reply::new(status, &[("Content-Type", "text/xml; charset=utf-8")], text)
        };
        let is_asked = request.method == "POST"
            && request.target == "/services/OrderService"
            && request.header("Accept").is_none();
        let action = request.header("SOAPAction").unwrap_or_default();
        match (is_asked, action) {
            (true, "urn:acme:orders:1/GetOrder") if body.contains("<o:Id>A-1</o:Id>") => envelope(
                200,
                "<GetOrderResponse xmlns=\"urn:acme:orders:1\"><Order id=\"A-1\"><Customer>Müller &amp; Co</Customer><Paid>true</Paid>\
                 <Note/><Lines><Line sku=\"x\" price=\"1.5\">two</Line></Lines></Order></GetOrderResponse>",
            ),
            (true, "urn:acme:orders:1/GetOrder") if body.contains("A-3") => Reply::nothing(),
            (true, "urn:acme:orders:1/GetOrder") if body.contains("A-4") => envelope(
                200,
                &format!(
                    "<GetOrderResponse xmlns=\"urn:acme:orders:1\"><Order>{}</Order></GetOrderResponse>",
                    "x".repeat(300)
                ),
            ),
            (true, "urn:acme:orders:1/GetOrder") => envelope(
                500,
                "<soapenv:Fault><faultcode>a:NoSuchOrder</faultcode><faultstring>none</faultstring></soapenv:Fault>",
            ),
            (true, "urn:acme:orders:1/ListOrders")
                if body.contains("<Customer>everybody</Customer>") =>
            {
                envelope(
                    500,
                    "<soapenv:Fault><faultcode>a:Busy</faultcode><faultstring>too \"busy\"</faultstring></soapenv:Fault>",
                )
            }
            (true, "urn:acme:orders:1/ListOrders") if body.contains("<Customer>Ada</Customer>") => {
                envelope(
                    200,
                    "<ListOrdersResponse xmlns=\"urn:acme:orders:1\"><Order id=\"A-1\"/><Order id=\"A-2\">late</Order></ListOrdersResponse>",
                )
            }
            (true, "urn:acme:orders:1/CreateOrder")
                if body.contains(
                    "<CreateOrder xmlns=\"urn:acme:orders:1\"><order><customer>Ada</customer>",
                ) && body
                    .contains("<lines><sku>x</sku><count>2</count></lines><lines><sku>y</sku>")
                    && !body.contains("<?xml") =>
            {
                envelope(
                    200,
                    "<CreateOrderResponse xmlns=\"urn:acme:orders:1\"><Id>A-9</Id></CreateOrderResponse>",
                )
            }
            _ => Reply::new(
                400,
                &[],
                format!("{} {} {action} {body}", request.method, request.target),
            ),
        }
    })
}

fn facade() -> (Organization, Origin) {
    let (organization, service) = (Organization::new(), order_service());
    organization.target_server("order-service", &service);
    organization.deploy("soap-facade");
    (organization, service)
}

#[test]
fn orders_are_read_as_json_or_xml() {
    let (organization, service) = facade();
    let gateway = &organization.gateway;
    let order = gateway
        .get("/orders/A-1?ignored=1")
        .header("Accept", "application/json")
        .header("X-Correlation-Id", "c-1")
        .send()
        .expect_status(200);
    assert_eq!(order.header("Content-Type"), Some("application/json"));
    assert_eq!(order.header("X-Correlation-Id"), Some("c-1"));
    assert_eq!(
        order.json(),
        json!({"_id": "A-1", "Customer": "Müller & Co", "Paid": true, "Note": null,
            "Lines": [{"_sku": "x", "_price": 1.5, "value": "two"}]}),
    );
    let asked = &service.received()[0];
    assert_eq!(asked.header("X-Correlation-Id"), Some("c-1"));
    assert!(
        asked
            .header("Content-Type")
            .is_some_and(|it| it.starts_with("text/xml"))
    );
    let xml = gateway
        .get("/orders/A-1?xml=true")
        .send()
        .expect_status(200);
    assert_eq!(xml.header("Content-Type"), Some("application/xml"));
    assert_eq!(
        (xml.header("X-Total"), xml.header("X-Paid")),
        (Some("1.5"), Some("true"))
    );
    assert!(
        xml.text().starts_with("<Order ") && xml.text().contains("Müller &amp; Co"),
        "{}",
        xml.text()
    );
    let list = gateway
        .get("/orders?customer=Ada")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (list["count"].as_i64(), list["first"].as_str()),
        (Some(2), Some("A-1"))
    );
    let orders = &list["raw"]["Envelope"]["Body"]["ListOrdersResponse"]["Order"];
    assert_eq!(orders[0]["@id"], "A-1", "{list}");
    assert_eq!(orders[1], json!({"@id": "A-2", "#text": "late"}));
}

#[test]
fn orders_are_made_from_json() {
    let (organization, service) = facade();
    let gateway = &organization.gateway;
    let post = |kind: &str, body: &str| {
        gateway
            .request("POST", "/orders")
            .header("Content-Type", kind)
            .body(body)
            .send()
    };
    let order = "{\"order\":{\"customer\":\"Ada\",\"lines\":[{\"sku\":\"x\",\"count\":2},{\"sku\":\"y\",\"count\":null}]}}";
    let created = post("application/json; charset=utf-8", order).expect_status(201);
    assert_eq!(created.header("Location"), Some("/orders/A-9"));
    assert_eq!(
        created.json(),
        json!({"id": "A-9", "lines": 2, "customer": "Ada"})
    );
    assert_eq!(service.received()[0].header("X-Lines"), Some("2"));
    post("application/vnd.acme.order+json", order).expect_status(201);
    let kind = post("text/plain", order).expect_status(415);
    assert_eq!(
        kind.json(),
        json!({"code": "unsupported_media_type", "got": "text/plain"})
    );
    for (body, fault) in [
        ("{\"order\":{\"customer\":\"Ada\"}}", "InvalidJSONPath"),
        ("{\"order\":", "ExecutionFailed"),
        (
            &format!("{{\"order\":{{\"customer\":\"{}\"}}}}", "a".repeat(101)),
            "ExecutionFailed",
        ),
    ] {
        let bad = post("application/json", body).expect_status(400);
        assert_eq!(
            bad.json(),
            json!({"code": "bad_order", "fault": fault}),
            "{body}"
        );
    }
    assert_eq!(service.received().len(), 2);
}

#[test]
fn faults_of_the_service_become_statuses() {
    let (organization, service) = facade();
    let gateway = &organization.gateway;
    let none = gateway.get("/orders/A-2").send().expect_status(404);
    assert_eq!(none.json(), json!({"code": "no_such_order", "id": "A-2"}));
    let busy = gateway.get("/orders/").send().expect_status(502);
    assert_eq!(
        busy.json(),
        json!({"code": "a:Busy", "text": "too \"busy\""})
    );
    let closed = gateway.get("/orders/A-3").send().expect_status(503);
    assert_eq!(closed.header("X-Fault"), Some("UnexpectedEOFAtTarget"));
    assert_eq!(closed.json()["code"], "order_service_unavailable");
    let attack = gateway.get("/orders/A-4").send().expect_status(503);
    assert_eq!(
        attack.header("X-Fault"),
        Some("ExecutionFailed"),
        "an answer that exceeds the limits"
    );
    let before = service.received().len();
    let bad = gateway.get("/orders/nonsense").send().expect_status(400);
    assert_eq!(bad.json(), json!({"code": "bad_id", "id": "nonsense"}));
    let unknown = gateway.get("/orders/A-1/lines").send().expect_status(404);
    assert_eq!(unknown.json(), json!({"code": "unknown_resource"}));
    assert_eq!(service.received().len(), before);
}
