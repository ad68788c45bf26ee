var body = request.content.asJSON;
body.customer = context.getVariable('customer.id');
body.lines.push({ sku: 'gift', price: 0, count: 1 });
delete body.internal;
request.headers['X-Lines'] = body.lines.length;
request.headers['X-Total'] = String(total(body.lines));
request.queryParams['traced'] = 'yes';
delete request.queryParams['secret'];
request.content = JSON.stringify(body);
