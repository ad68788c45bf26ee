// Asked now, waited for when the profile is here.
var host = context.getVariable('service.orders');
var ask = new Request('http://' + host + '/orders?customer=' + encodeURIComponent(context.getVariable('customer.id')), 'GET', { 'Accept': 'application/json', 'X-Page': header('x-page') || 'none' });
context.session['orders'] = httpClient.send(ask);
httpClient.get('http://' + context.getVariable('service.offers') + '/offers', function (response, error) {
    if (error) {
        context.setVariable('offers.error', String(error));
    } else {
        context.setVariable('offers.status', response.status.code);
        context.setVariable('offers.json', response.content.asJSON.offers.length);
    }
});
var config = { limit: 2, nested: { names: ['a', 'b'] } };
context.setVariable('page.config', config);
