var orders = context.session['orders'];
orders.waitForComplete(15000);
var result = { customer: { id: context.getVariable('customer.id'), name: context.getVariable('profile.name') } };
if (orders.isSuccess()) {
    var list = orders.getResponse().content.asJSON;
    result.orders = list.slice(0, context.getVariable('page.config').limit);
    result.total = total(list);
} else if (orders.isError()) {
    result.orders = null;
    result.error = orders.getError();
}
result.offers = context.getVariable('offers.json');
result.vip = context.getVariable('profile.vip') === true;
result.undeclared = typeof undeclared;
response.headers['Content-Type'] = 'application/json';
response.headers['X-Names'] = context.getVariable('page.config').nested.names.join('+');
response.content = JSON.stringify(result);
response.status = 200;
