var verb = context.proxyRequest.method;
if (context.flow === 'PROXY_REQ_FLOW' && ['GET', 'POST'].indexOf(verb) < 0) {
    throw new Error('verb ' + verb + ' is not known here');
}
context.setVariable('page.started', new Date().getTime());
undeclared = 1;
