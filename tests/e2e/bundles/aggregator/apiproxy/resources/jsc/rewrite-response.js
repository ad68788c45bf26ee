var answer = JSON.parse(context.proxyResponse.content);
answer.seen = context.proxyResponse.headers['Content-Type'];
answer.status = context.getVariable('response.status.code');
context.proxyResponse.status.code = 201;
context.setVariable('response.content', JSON.stringify(answer));
