var hash = crypto.getHash('SHA-256');
hash.update(response.content);
var md5 = crypto.getMD5();
md5.update(response.content);
context.setVariable('response.header.Digest', 'sha-256=' + hash.digest64());
context.setVariable('response.header.Content-MD5', md5.digest());
context.setVariable('response.header.X-Day', crypto.dateFormat('yyyy-MM-dd', 'UTC', 0));
delete response.headers['X-Internal'];
