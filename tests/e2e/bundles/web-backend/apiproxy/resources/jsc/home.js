var news = JSON.parse(context.getVariable('news.content'));
response.headers['Content-Type'] = 'application/json';
response.content = JSON.stringify({
    hello: context.getVariable('user.name'),
    headlines: news.map(function (item) { return item.title; }),
    degrees: context.getVariable('weather.degrees')
});
