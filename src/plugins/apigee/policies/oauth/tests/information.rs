//! Looking at tokens, changing what is attached to them, revoking all of somebody.

use super::super::info::Info;
use super::*;

fn info(house: &House, kind: &str, body: &str) -> Info {
    let live = &house.world.live;
    Info {
        name: "i".to_owned(),
        config: config(&format!("<{kind} name='i'>{body}</{kind}>")),
        keys: KeyTable::of(live),
        store: TokenStore::of(live),
    }
}

#[tokio::test]
async fn tokens_are_shown_changed_and_deleted() {
    let house = House::new();
    let answer = house.ask(CLIENT, PASSWORD).await.unwrap();
    let (access, refresh) = (
        answer["access_token"].as_str().unwrap(),
        answer["refresh_token"].as_str().unwrap(),
    );
    let mut scope = house.form("");
    scope.set_own("a", access.to_owned());
    scope.set_own("r", refresh.to_owned());
    scope.set_own("level", "3".to_owned());
    let change =
        "<AccessToken ref='a'/><Attributes><Attribute name='level' ref='level'/></Attributes>";
    info(&house, "SetOAuthV2Info", change)
        .run(&mut scope)
        .await
        .unwrap();
    let show = "<AccessToken ref='a'/><RefreshToken ref='r'/><ClientId>k</ClientId>";
    info(&house, "GetOAuthV2Info", show)
        .run(&mut scope)
        .await
        .unwrap();
    for (name, value) in [
        ("oauthv2accesstoken.i.accesstoken.level", "3"),
        ("oauthv2accesstoken.i.refresh_token", refresh),
        ("oauthv2accesstoken.i.scope", "READ"),
        ("oauthv2refreshtoken.i.access_token", access),
        ("oauthv2refreshtoken.i.refresh_token_status", "approved"),
        ("oauthv2client.i.developer.email", "d@x"),
        ("oauthv2client.i.redirection_uris", "https://app.test/cb"),
    ] {
        assert_eq!(text(&scope, name).as_deref(), Some(value), "{name}");
    }
    let (called, _) = house.call("", access);
    assert_eq!(text(&called, "accesstoken.level").as_deref(), Some("3"));
    let delete = info(&house, "DeleteOAuthV2Info", "<AccessToken ref='a'/>");
    delete.run(&mut scope).await.unwrap();
    assert_eq!(house.called(access), "invalid_access_token");
    assert!(delete.run(&mut scope).await.is_err(), "it is gone");
    for body in [
        "<AccessToken ref='a'/>",
        "<ClientId>x</ClientId>",
        "<AuthorizationCode>x</AuthorizationCode>",
        "<RefreshToken ref='unset'/>",
    ] {
        let policy = info(&house, "GetOAuthV2Info", body);
        assert!(policy.run(&mut scope).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn everything_of_an_app_or_user_is_revoked_at_once() {
    let with_user = format!("{CLIENT}<AppEndUser>request.formparam.user</AppEndUser>");
    for (body, access_good, refresh_good) in [
        ("<AppId>app-id</AppId>", false, false),
        ("<AppId>app-id</AppId><Cascade>false</Cascade>", false, true),
        ("<AppId>other</AppId>", true, true),
        ("<EndUserId>ann</EndUserId>", false, false),
        ("<EndUserId>bob</EndUserId>", true, true),
        (
            "<AppId>app-id</AppId><EndUserId>ann</EndUserId>",
            false,
            false,
        ),
        (
            "<AppId>app-id</AppId><EndUserId>bob</EndUserId>",
            true,
            true,
        ),
        (
            "<AppId>app-id</AppId><RevokeBeforeTimestamp>1</RevokeBeforeTimestamp>",
            true,
            true,
        ),
    ] {
        let house = House::new();
        let answer = house
            .ask(&with_user, &format!("{PASSWORD}&user=ann"))
            .await
            .unwrap();
        let mut scope = house.form("");
        info(&house, "RevokeOAuthV2", body)
            .run(&mut scope)
            .await
            .unwrap();
        let access = answer["access_token"].as_str().unwrap();
        assert_eq!(house.called(access).is_empty(), access_good, "{body}");
        let refresh = answer["refresh_token"].as_str().unwrap();
        let form =
            format!("grant_type=refresh_token&refresh_token={refresh}&client_id=k&client_secret=s");
        assert_eq!(
            house.ask(REFRESH, &form).await.is_ok(),
            refresh_good,
            "{body}"
        );
    }
    let house = House::new();
    let future =
        "<AppId>app-id</AppId><RevokeBeforeTimestamp>99999999999999</RevokeBeforeTimestamp>";
    let outcome = info(&house, "RevokeOAuthV2", future)
        .run(&mut house.form(""))
        .await;
    assert!(outcome.is_err());
}
