var user = context.getVariable('user.id');
var bucket = bucketOf(properties.salt + ':' + user);
print('bucket ' + bucket);
context.setVariable('user.bucket', bucket);
if (request.headers['X-Debug'] == 'yes') {
    context.setVariable('debug.bucket', String(bucket));
}
