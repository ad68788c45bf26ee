context.setVariable('target.copy.pathsuffix', false);
context.targetRequest.method = 'PUT';
request.headers['X-Names'] = (function () {
    var names = [];
    for (var name in request.queryParams) { names.push(name); }
    return names.sort().join(',');
})();
